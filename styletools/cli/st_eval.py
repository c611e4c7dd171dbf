"""st-eval: score restyled pictures."""

import contextlib
import dataclasses
import itertools
import os
import random
import re
import statistics
import sys
import tempfile
import time

import click

from styletools import __version__, backbones, errors, files, log, methods, metrics, modelfile, streams
from styletools.cli import _gate, _models, _options, _pairs, _scores
from styletools.cli._command import as_styletools_error, command_line, group, report
from styletools.engine import video

# Those of them that are measured for which all is given. None needs a download.
DEFAULT = ("style", "content", "cfsd", "ssim", "color")
FRECHET = ("fd", "fid")  # compare with a statistics file, too

_write = click.option("-o", "--write", metavar="FILE", default="-", type=_options.PATH,
                      help="Where the result goes (default: standard output).")  # fmt: skip
_to = click.option("--to", metavar="FORMAT", type=click.Choice(_scores.FORMATS),
                   help="jsonl (default), table (default on a terminal) or markdown.")  # fmt: skip
_metrics = click.option("--metrics", "words", metavar="NAME[:NETWORK],...",
                        help="What to measure; st-eval list tells what there is.")  # fmt: skip
_square = click.option("--square", is_flag=True, help="Cut the middle square out of every picture.")
_table = click.option("--pairs", "table", metavar="TABLE", type=_options.PATH,
                      help="A table of paths; its first line names the columns: output, content, style.")  # fmt: skip
_page = click.option("--report", "page", metavar="FILE", type=_options.PATH,
                     help="Write a page (HTML): tables, distributions, the worst and the best pairs.")  # fmt: skip
_note = click.option("--note", metavar="TEXT", default="", help="For the page: what made the outputs.")
_limit = click.option("--limit", metavar="N", type=_options.Count(),
                      help="Only this many pairs, drawn at random by --seed.")  # fmt: skip
_content = click.option("--content", metavar="PATH", type=_options.PATH,
                        help="Photographs: a picture, a folder, an archive, a video, or - (a stream).")  # fmt: skip
_style = click.option("--style", metavar="PATH", type=_options.PATH,
                      help="Paintings: the same; a single picture is the style of all.")  # fmt: skip


@group("st-eval", invoke_without_command=True)
@click.option("--output", metavar="PATH", type=_options.PATH,
              help="Restyled pictures to score: a picture, a folder, an archive, a video, or -.")  # fmt: skip
@_content
@_style
@_table
@click.option("--pair-by", metavar="HOW", type=click.Choice(["name", "product"]), default="name", show_default=True,
              help="name: outputs are called as their contents; product: every content in every style.")  # fmt: skip
@click.option("--name", "template", metavar="TEMPLATE", default="{content}_{style}", show_default=True,
              help="With --pair-by product: what an output is called, without extension.")  # fmt: skip
@click.option("--partial", is_flag=True, help="Leave out what has no partner, with a warning.")
@_limit
@_options.seed
@_metrics
@_options.backbone
@_options.size
@_square
@click.option("--flow", metavar="PATH", type=_options.PATH,
              help="True motion of the frames, for warp: a .flo file, or a folder of them.")  # fmt: skip
@click.option("--reference", metavar="FILE.npz", type=_options.PATH,
              help="Statistics that fd or fid compare with, in place of the styles.")  # fmt: skip
@click.option("--save-statistics", metavar="FILE.npz", type=_options.PATH,
              help="Write the statistics that fd or fid have of the outputs.")  # fmt: skip
@click.option("--fail-if", "conditions", metavar="CONDITION", multiple=True,
              help="Exit 1 where this holds: 'lpips>0.6', 'style>1.1*baseline.style'; may be repeated.")  # fmt: skip
@click.option("--baseline", metavar="FILE", type=_options.PATH,
              help="An earlier result, for baseline.NAME in conditions.")  # fmt: skip
@_page
@_note
@_write
@_to
@_options.from_format
@_options.device
@_options.max_pixels
@_options.fail_fast
@click.pass_context
def main(context, **options):
    """Score restyled pictures, and beside them what copying the photograph or the painting would score.

    st-eval --content photos/ --style wave.jpg --output restyled/ --fail-if 'content>0.6'
    """
    if not context.invoked_subcommand:
        return _evaluate(**options)
    if any(context.get_parameter_source(name).name == "COMMANDLINE" for name in options):
        raise errors.UsageError(f"options of st-eval itself do not go before {context.invoked_subcommand}")
    return 0


def _evaluate(
    output, content, style, table, pair_by, template, partial, limit, seed, words, backbone, size, square, flow,
    reference, save_statistics, conditions, baseline, page, note, write, to, from_format, device, max_pixels, fail_fast,
):  # fmt: skip
    gates = [_gate.parse(text) for text in conditions]
    before = _read_baseline(baseline) if baseline else None
    given, pairs = _plan(output, content, style, table, pair_by, template, partial)
    if pairs is None and (limit or partial or pair_by != "name"):
        raise errors.UsageError("frames are compared one after another: --limit, --partial and --pair-by are for files")
    specs = _specs(words, backbone, given, FRECHET if reference or save_statistics else ())
    _check_gates(gates, specs, before)
    compared = [spec.key for spec in specs if spec.name in FRECHET]
    of_frames = [spec.name for spec in specs if metrics.describe(spec.name).scope == "sequence"]
    if flow and (square or not of_frames):
        raise errors.UsageError("--flow goes with warp, and not with --square: motion is told for whole frames")
    if limit and of_frames:
        raise errors.UsageError(f"--limit does not go with {of_frames[0]}: frames that are drawn are no neighbours")
    if (reference or save_statistics) and len(compared) != 1:
        raise errors.UsageError("--reference and --save-statistics go with one of the metrics fd and fid")
    for path in filter(None, (reference, flow)):
        if not os.path.exists(path):
            raise errors.MissingInput(f"{path}: no such file")
    if pairs and limit:
        pairs = _drawn(pairs, limit, seed)
    named = [path for pair in pairs for path in dataclasses.astuple(pair)] if pairs else [output, content, style]
    scores = _check_result([write, page, save_statistics], [*named, table, baseline, reference, flow], to)
    provenance = _provenance(specs, size, square)
    if before:
        _check_same(before, provenance | ({"pairs": len(pairs)} if pairs else {}), "the baseline")

    from styletools.engine import device as devices
    from styletools.engine import evaluate

    chosen = devices.choose(device)
    looks = evaluate.Looks(size=size, square=square, device=chosen, limits=streams.Limits(max_pixels=max_pixels))
    evaluation = evaluate.Evaluation(specs, device=chosen)
    if reference:
        evaluation.use_reference(compared[0], reference)
    if pairs is None:
        shown = evaluate.frames(looks, output, *_named(content, style), flow=flow, format=from_format)
    else:
        shown = evaluate.pairs(looks, pairs, flow=flow)
    with scores:
        rows, faults = _score(evaluation, shown, scores, pairs and len(pairs), fail_fast=fail_fast)
        summary = {"name": "measured"} | evaluation.summary() | {"failed": len(faults)}
        summary |= provenance
        if rows:
            scores.line({"summary": summary})
            scores.table([summary], rows)
        if save_statistics and rows:
            evaluation.measured[compared[0]].save_statistics(save_statistics)
    if page and rows:
        shown = [row | {"set": "measured"} for row in rows]
        _write_page(page, "Restyled pictures, scored", note, specs, [summary], shown, looks)
    elif page:
        log.warning(f"{page} is not written: nothing was scored")
    failed = [complaint for gate in gates if (complaint := _failure(gate, summary, before))]
    for complaint in failed:
        log.error(complaint, status=1)
    if len(faults) == 1 and not rows:
        return faults[0]
    return 1 if failed or faults else 0


# ---- before the work -------------------------------------------------------------------------------------


def _plan(output, content, style, table, pair_by, template, partial):
    """Return which of content and style are given, and the pairs; None for frames, which are paired as they come."""
    paths = [path for path in (output, content, style) if path]
    told = log.warning if partial else None
    if table:
        pairs = _pairs.from_table(table, {"output": output, "content": content, "style": style})
    elif not output:
        raise errors.UsageError("--output is needed: what is to be scored? (or --pairs)")
    elif video.is_sequence(output):
        if paths.count("-") > 1:
            raise errors.UsageError("standard input can be one of output, content and style only")
        for path in paths:
            if path != "-" and not os.path.exists(path):
                raise errors.MissingInput(f"{path}: no such file or folder")
        return {role for role, path in (("content", content), ("style", style)) if path}, None
    elif any(map(video.is_sequence, paths)):
        raise errors.UsageError("where content or style is a stream, an archive or a video, output must be one, too")
    elif pair_by == "product":
        if not (content and style):
            raise errors.UsageError("--pair-by product needs --content and --style")
        pairs = _pairs.product(output, content, style, _pairs.check_template(template), told)
    else:
        pairs = _pairs.by_name(output, content, style, told)
    return {role for role in ("content", "style") if all(getattr(pair, role) for pair in pairs)}, pairs


def _specs(words, backbone, given, without_style=()) -> list[metrics.Spec]:
    """Return the metrics that are asked for, or those of DEFAULT that can be had. Raises UsageError for the others.

    given: the roles that every pair has. Metrics of `without_style` do without one.
    """
    if not words:
        words = ",".join(name for name in DEFAULT if set(metrics.describe(name).needs) <= given)
        if not words:
            raise errors.UsageError("--content or --style is needed: what is output to be compared with?")
    specs = metrics.parse(words, backbone)
    for spec in specs:
        for role in metrics.describe(spec.name).needs:
            if role not in given and not (role == "style" and spec.name in without_style):
                raise errors.UsageError(f"{spec.name} compares with the {role}: --{role} is needed, for every output")
    return specs


def _check_gates(gates, specs, before) -> None:
    """Raise UsageError for a condition on what is not measured, or on a baseline that is not given or lacks it."""
    for gate in gates:
        for name in gate.scores:
            bare = re.sub(r"^(?:max|min)\(|\)$", "", name)
            origin, dot, rest = bare.partition(".")
            if dot and origin in ("identity", "target", "baseline"):
                bare = rest
            if origin == "baseline":
                if before is None:
                    raise errors.UsageError(f"--fail-if {gate.text!r}: --baseline is needed")
                if bare not in before["scores"]:
                    raise errors.UsageError(f"--fail-if {gate.text!r}: the baseline has no score {bare}")
            elif not any(bare == spec.key or bare.startswith(f"{spec.key}.") for spec in specs):
                known = ", ".join(spec.key for spec in specs)
                raise errors.UsageError(f"--fail-if {gate.text!r}: {bare} is not measured, but {known}")
            by_pair = {spec.key for spec in specs if metrics.describe(spec.name).scope != "set"}
            if "(" in name and not any(name[4:-1] == key or name[4:].startswith(f"{key}.") for key in by_pair):
                raise errors.UsageError(f"--fail-if {gate.text!r}: min and max are of the pairs measured")


def _check_result(results, inputs, to="jsonl") -> _scores.Scores:
    """Return what writes the scores, to the first of `results`. Raises where one of these cannot be made.

    UsageError where two go to one file, or one to a file that is read.
    """
    taken = {os.path.realpath(path) for path in inputs if path and path != "-"}
    for number, path in enumerate(results):
        if path == "-" and number:
            raise errors.UsageError("a page and statistics need a file: standard output is for scores")
        if path and path != "-":
            if os.path.realpath(path) in taken:
                raise errors.UsageError(f"{path}: would be overwritten, and is read or written already; choose another")
            taken.add(os.path.realpath(path))
            folder = os.path.dirname(os.path.abspath(path))
            if os.path.isdir(path):
                raise errors.CannotCreate(f"{path}: is a directory")
            if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):
                raise errors.NotPermitted(f"{path}: permission denied")
    return _scores.Scores(results[0], to)


def _drawn(pairs: list, limit: int, seed: int) -> list:
    """Return so many of the pairs, drawn at random, in their order."""
    chosen = random.Random(seed).sample(range(len(pairs)), min(limit, len(pairs)))
    return [pairs[number] for number in sorted(chosen)]


# ---- the work --------------------------------------------------------------------------------------------


def _score(evaluation, shown, scores, total, *, fail_fast=False, passing=False, **fields):
    """Score what is shown; return the rows, and the exit statuses of those that failed.

    passing: the outputs do not outlive the command, and what is written tells their names only.
    """
    rows, faults = [], []
    progress = log.Progress(total, "pair")
    try:
        for names, make in shown:
            try:
                row = fields | names | {"scores": evaluation.add(*make())}
            except Exception as error:
                fault = as_styletools_error(error)
                if not isinstance(fault, errors.DataError | errors.MissingInput | errors.NotPermitted):
                    raise
                faults.append(report(fault, names["output"]))
                evaluation.restart()
                if fail_fast:
                    break
                continue
            rows.append(row)
            scores.line(row | {"output": os.path.basename(row["output"])} if passing else row)
            progress.update()
    finally:
        progress.close()
    return rows, faults


def _named(*paths):
    """Return paths as they are, but folders as the pictures in them, by name."""
    return [_pairs.pictures(path) if path and os.path.isdir(path) else path for path in paths]


def _provenance(specs, size, square) -> dict:
    """Return what one must know to measure the same again, the digests of the networks' weights among it."""
    told = _scores.told(specs)
    for each in told.values():
        if each["network"] in backbones.names():
            each["weights"] = modelfile.digest(backbones.find_weights(each["network"]))[:16]
    return {
        "metrics": told, "size": size, "square": square, "version": __version__,
        "command": command_line(), "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def _read_baseline(path) -> dict:
    """Return the summary of an earlier result. Raises DataError for one of several sets: which would be meant?"""
    summary, *more = _scores.read_summaries(path)
    if more:
        raise errors.DataError(f"{path}: holds {len(more) + 1} summaries, of several models: a baseline has one")
    return summary


def _check_same(one, other, what) -> None:
    """Raise DoesNotFit where two summaries (or what is known of them) were not measured alike. what: the first one."""
    alike = [(one, other, name) for name in ("pairs", "size", "square")]
    for key in one["metrics"].keys() & other["metrics"].keys():
        alike += [(one["metrics"][key], other["metrics"][key], name) for name in ("network", "weights")]
    for old, new, name in alike:
        if name in old and name in new and old[name] != new[name]:
            raise errors.DoesNotFit(f"{what} was measured with other {name}: {old[name]}, not {new[name]}")


def _failure(gate, summary, before) -> str:
    """Return what to say of a condition that holds; "" where it does not."""
    places = {"baseline": before["scores"] if before else {}, **summary["controls"]}

    def score(name):
        found = re.fullmatch(r"(max|min)\((.*)\)", name)
        if found:
            return summary[found[1]].get(found[2])
        origin, dot, rest = name.partition(".")
        return places[origin].get(rest) if dot and origin in places else summary["scores"].get(name)

    if not gate.holds(score):
        return ""
    values = ", ".join(f"{name} is {score(name):.4g}" for name in dict.fromkeys(gate.scores))
    return f"failed: {gate.text} ({values})"


def _write_page(path, title, note, specs, summaries, rows, looks) -> None:
    """Write the page of --report."""
    from styletools.engine import evaluate, report

    told = _scores.told(specs)
    described = {spec.key: metrics.describe(spec.name) for spec in specs}
    data = {
        "title": title, "command": command_line(), "version": __version__, "model": note, "note": "",
        "created": summaries[-1]["time"], "sets": _scores.sets_of(summaries), "pairs": rows,
        "metrics": [{"key": k, "title": d.title, "scope": d.scope} | told[k] for k, d in described.items()],
    }  # fmt: skip
    report.write(path, data, evaluate.Pictures(looks))


# ---- the other commands ----------------------------------------------------------------------------------


@main.command("list")
def list_all():
    """List the metrics: what they say, what they compare with, and what is better."""
    width = max(map(len, metrics.names()))
    for name in metrics.names():
        told = metrics.describe(name)
        words = [f"of a {told.scope}", f"needs {', '.join(told.needs)}" if told.needs else "needs output only"]
        words += [f"{told.better} is better" if told.better != "neither" else "", told.range]
        words += [f"by {told.network}" if told.network else ""]
        click.echo(f"{name:{width}}  {told.title} [{', '.join(filter(None, words))}]")


@main.command("compare")
@click.option("-m", "--model", "models", metavar="[NAME=]MODEL", multiple=True,
              help="A model: bundled, a file, a published checkpoint, a method; may be repeated.")  # fmt: skip
@_table
@_content
@_style
@_limit
@_options.seed
@_metrics
@_options.backbone
@_options.size
@_square
@click.option("--keep", metavar="DIR", type=_options.PATH, help="Keep the restyled pictures below this folder.")
@click.option("--with", "earlier", metavar="FILE", multiple=True, type=_options.PATH,
              help="Put the sets of an earlier result into the table, too; may be repeated.")  # fmt: skip
@_page
@_note
@_write
@_to
@_options.device
def compare(models, table, content, style, limit, seed, words, backbone, size, square, keep, earlier, page, note,
            write, to, device):  # fmt: skip
    """Restyle the same pairs with several models, and score what each makes of them beside its time and memory.

    The pairs are those of a table (--pairs), or every content in every style.
    """
    found = _models_to_compare(models)
    summaries = [summary for path in earlier for summary in _scores.read_summaries(path)]
    if not found and not summaries:
        raise errors.UsageError("-m is needed: what is to be compared? (or --with)")
    for summary in summaries[1:]:
        _check_same(summaries[0], {**summary, "pairs": summaries[0]["pairs"]}, f"{summaries[0]['name']}")
    if not found:
        with _check_result([write, page], earlier, to) as scores:
            for summary in summaries:
                scores.line({"summary": summary})
            scores.table(summaries)
        return 0
    if table:
        pairs = _pairs.from_table(table, {"content": content, "style": style}, ("content", "style"))
    elif content and style:
        both = itertools.product(_pairs.pictures(content).values(), _pairs.pictures(style).values())
        pairs = [_pairs.Pair("", *each) for each in both]
    else:
        raise errors.UsageError("--pairs is needed, or --content and --style: what is to be restyled?")
    pairs = _drawn(pairs, limit, seed) if limit else pairs
    specs = _specs(words, backbone, {"content", "style"})
    named = [path for pair in pairs for path in dataclasses.astuple(pair)]
    scores = _check_result([write, page], [*named, *earlier, table], to)
    if keep and os.path.exists(keep) and not os.path.isdir(keep):
        raise errors.CannotCreate(f"{keep}: is not a directory")
    provenance = _provenance(specs, size, square)
    for summary in summaries:
        _check_same(summary, provenance, summary["name"])

    from styletools.engine import device as devices
    from styletools.engine import evaluate

    chosen = devices.choose(device)
    looks = evaluate.Looks(size=size, square=square, device=chosen)
    faults, rows = [], []
    with contextlib.ExitStack() as stack:
        folder = keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="styletools-"))
        stack.enter_context(scores)
        for name, (method, path, config) in found.items():
            job = {"method": method, "model": path and os.path.abspath(path), "config": config, "device": str(chosen),
                   "size": size, "square": square}  # fmt: skip
            try:
                made, costs, failed = _restyle(job, name, pairs, os.path.join(folder, name))
            except errors.StyletoolsError as error:
                faults.append(report(error, name))  # the other models are none the worse for it
                continue
            evaluation = evaluate.Evaluation(specs, device=chosen, controls=not rows)
            own, more = _score(evaluation, evaluate.pairs(looks, made), scores, len(made), passing=not keep, model=name)
            rows, faults = rows + own, faults + failed + more
            if not own:
                continue
            summary = {"name": name} | evaluation.summary() | costs | {"failed": len(failed) + len(more)}
            summaries.append(summary | provenance)
            scores.line({"summary": summaries[-1]})
        scores.table(summaries)
        if page and rows:
            shown = [row | {"set": row["model"]} for row in rows]
            _write_page(page, "Models compared", note, specs, summaries, shown, looks)
    return 1 if faults else 0


def _models_to_compare(models) -> dict[str, tuple]:
    """Return {name: (method, file, config)} of -m. Raises UsageError for what restyles no picture by a given style."""
    found: dict[str, tuple] = {}
    for text in models:
        name, equals, model = text.partition("=")
        if not equals or os.path.exists(text):
            name, model = os.path.splitext(os.path.basename(text.rstrip(os.sep)))[0], text
        if name in found or not re.fullmatch(r"[\w.+ -]+", name) or name in (".", ".."):
            raise errors.UsageError(f"-m {text}: give each model a name of its own, NAME=MODEL")
        method, path, config = found[name] = _models.resolve(model)
        if methods.describe(method).applies_to not in ("image", "image+style", "image+label"):
            raise errors.UsageError(f"-m {text}: {method} does not restyle pictures")
        if methods.describe(method).applies_to == "image":
            log.warning(f"{name} has its styles built in: of the paintings, only the names are known to it")
    return found


def _restyle(job, name, pairs, folder):
    """Restyle the pairs into a folder; return what is made, what it cost, and the statuses of failures."""
    from styletools.engine import compare as comparing

    outputs = [
        os.path.join(folder, f"{number:04}_{_stem(pair.content)}_{_stem(pair.style)}.png")
        for number, pair in enumerate(pairs, 1)
    ]
    whole = [[pair.content, pair.style, output] for pair, output in zip(pairs, outputs)]
    made, seconds, failed, costs = [], [], [], {}
    progress = log.Progress(len(pairs), f"{name} picture")
    try:
        for event in comparing.restyle(job | {"pairs": whole}):
            if "peak_mb" in event:
                costs = {"seconds": round(statistics.median(seconds), 4) if seconds else None} | event
                continue
            pair, output = pairs[event["pair"]], outputs[event["pair"]]
            if "error" in event:
                failed.append(report(errors.of_status(event["status"], event["error"])))
                continue
            seconds.append(event["seconds"])
            made.append(dataclasses.replace(pair, output=output))
            progress.update()
    finally:
        progress.close()
    return made, costs, failed


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


@main.command("study")
@click.argument("more", metavar="[[NAME=]DIR]...", nargs=-1, type=_options.PATH)
@click.option("--methods", "folders", metavar="[NAME=]DIR", multiple=True,
              help="A folder of restyled pictures; further ones may follow without the option.")  # fmt: skip
@_content
@_style
@click.option("--trials", metavar="N", type=_options.Count(), help="Comparisons that each rater is asked for (all).")
@click.option("--question", metavar="TEXT", default="Which picture is the better painting of this photograph?",
              show_default=True, help="What raters are asked.")  # fmt: skip
@_options.seed
@_write
def study(more, folders, content, style, trials, question, seed, write):
    """Write a page (HTML, self-contained) on which people compare methods blind, two pictures at a time.

    st-eval study --methods gatys/ live/ adain/ --content photos/ -o study.html
    """
    found = {}
    for text in (*folders, *more):
        name, equals, path = text.partition("=")
        if not equals or os.path.exists(text):
            name, path = os.path.basename(os.path.abspath(text)), text
        if name in found:
            raise errors.UsageError(f"{text}: give each method a name of its own, NAME=DIR")
        found[name] = _pairs.pictures(path)
    if len(found) < 2:
        raise errors.UsageError("--methods needs two folders or more: what is to be compared?")
    keys = next(iter(found.values()))
    shown = [_for_all(path, keys) if path else None for path in (content, style)]
    _check_result([write], [path for files_of in (*found.values(), *filter(None, shown)) for path in files_of.values()])
    if write == "-" and files.is_terminal(sys.stdout):
        raise errors.UsageError("standard output is a terminal: name a file with -o")

    from styletools.engine import study as studies

    with _scores.Scores(write, "jsonl") as out:
        studies.write(
            out.stream, found, contents=shown[0], styles=shown[1], trials=trials, seed=seed, question=question
        )


def _for_all(path, keys) -> dict[str, str]:
    """Return the pictures of a folder by name, or a single one for all names."""
    return _pairs.pictures(path) if os.path.isdir(path) else dict.fromkeys(keys, path)


@main.command("study-score")
@click.argument("results", metavar="RESULT...", nargs=-1, required=True, type=_options.PATH)
@_write
@_to
@_options.seed
def study_score(results, write, to, seed):
    """Return win rates and Bradley-Terry strengths of the methods of a study, with 95 % intervals.

    st-eval study-score results*.json
    """
    scores = _check_result([write], results, to)
    from styletools.engine import study as studies

    told = studies.score(studies.read_results(results), seed=seed)
    with scores:
        scores.line(told)
        heads = ["", "win rate", "95 %", "strength", "95 %", "wins", "losses", "ties"]
        scores.rows(heads, [[
            each["name"], f"{each['win_rate']:.3f}", f"{each['win_rate_low']:.3f} to {each['win_rate_high']:.3f}",
            f"{each['strength']:.3f}", f"{each['low']:.3f} to {each['high']:.3f}",
            *(f"{each[key]:g}" for key in ("wins", "losses", "ties")),
        ] for each in told["methods"]])  # fmt: skip
