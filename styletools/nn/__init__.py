"""Network parts that two or more methods or backbones share."""
