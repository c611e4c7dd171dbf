"""The commands: words and click, never a tensor. One file each."""
