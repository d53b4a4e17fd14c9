"""The commands over a study's results: `report`, `export`, `compare` and `watch`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.cli.arguments import add_command, add_directory, path, whole_number, words
from study.errors import DONE, ConfigError
from study.output import say

if TYPE_CHECKING:
    from analysis.load import Study


def add_result_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_report(commands)
    _add_export(commands)
    text = "set studies side by side: the same configurations, and the front of all together"
    parser = add_command(commands, "compare", _compare, text)
    text = "studies' directories; result files of PEFT's method_comparison may stand beside them"
    parser.add_argument("directories", type=path, nargs="+", metavar="DIR", help=text)
    text = "show the live table of a study that another process runs"
    add_directory(add_command(commands, "watch", _watch, text), "the study's directory")


def _add_report(commands: Any) -> None:
    text = "write a study's report.html and pareto.json anew, also while it runs"
    parser = add_command(commands, "report", _report, text)
    add_directory(parser)
    text = "say which configuration to take with so much memory, such as 8GiB, and what it costs"
    parser.add_argument("--budget", metavar="BYTES", help=text)
    text = "show it in a browser of this machine instead, anew while the study runs; PORT 0 takes a free one"
    parser.add_argument("--serve", type=whole_number(0, 65535), nargs="?", const=0, metavar="PORT", help=text)
    text = "also print it to report.pdf, with the Chromium or Chrome of this machine"
    parser.add_argument("--pdf", action="store_true", help=text)
    text = "also write every figure as PNG and SVG, where it has changed, and every table as CSV, into this folder"
    parser.add_argument("--figures", type=path, metavar="FOLDER", help=text)


def _add_export(commands: Any) -> None:
    text = "take a trial's adapter out of a study, with a model card, also merged or onto a hub"
    parser = add_command(commands, "export", _export, text)
    add_directory(parser, "the study's directory")
    parser.add_argument(
        "trial", type=words, metavar="TRIAL", help="the trial's id, such as t003; the report names them"
    )
    text = "a new or empty folder (default: NAME-TRIAL here, with -merged where it is)"
    parser.add_argument("--to", type=path, metavar="FOLDER", help=text)
    text = "write the base model in 16 bits with the adapter merged in, which needs no PEFT to load"
    parser.add_argument("--merge", action="store_true", help=text)
    text = "also upload the folder to this hub repository, made private where it is new; the token is HF_TOKEN's"
    parser.add_argument("--push", metavar="OWNER/NAME", help=text)


def _report(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.report.page import write_report
    from study.records.layout import study_file
    from study.records.reading import set_aside_words

    study_file(options.directory)
    if options.serve is not None:
        from study.reporting.live_report import serve

        serve(options.directory, options.serve, say)
        return DONE
    budget_bytes = None if options.budget is None else _budget_bytes(options.budget)
    study = load_study(options.directory)
    report = write_report(study)
    if budget_bytes is not None:
        _say_budget(study, budget_bytes)
    if left_out := set_aside_words(study.set_aside):
        say(f"{left_out} `resume` moves them away, and runs the trials again that have no other record.\n")
    say(str(report))
    if options.figures:
        _write_figures(study, options.figures)
    if options.pdf:
        from study.reporting.pdf import print_report

        say(str(print_report(report)))
    return DONE


def _budget_bytes(text: str) -> int:
    from study.records.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ConfigError.of("--budget", "", text, str(error), "Write for example 8GiB.") from None


def _say_budget(study: Study, budget_bytes: int) -> None:
    from analysis.pareto import TOLERANCE
    from study.reporting.budget_card import budget_text

    say(budget_text(study, budget_bytes, TOLERANCE) + "\n")


def _write_figures(study: Study, folder: Path) -> None:
    from analysis.notebook import export_everything
    from study.records.study_files import written

    with written(folder, "Name another folder for --figures."):
        files = export_everything(study, folder)
    say("\n".join(map(str, files)))


def _export(options: argparse.Namespace) -> int:
    from study.export.adapter import check_repository, export_trial, push_folder

    if options.push:
        check_repository(options.push)  # before anything is written
    suffix = "-merged" if options.merge else ""
    target = options.to or Path(f"{options.directory.absolute().name}-{options.trial}{suffix}")
    _say_set_aside(options.directory)
    say(str(export_trial(options.directory, options.trial, target, options.merge)))
    if options.push:
        say(push_folder(target, options.push))
    return DONE


def _say_set_aside(directory: Path) -> None:
    from study.records.layout import RESULTS_FILE
    from study.records.reading import read_records, set_aside_words

    if left_out := set_aside_words(read_records(directory / RESULTS_FILE).set_aside):
        say(left_out)


def _compare(options: argparse.Namespace) -> int:
    from study.reporting.comparison import compare

    say(compare(options.directories))
    return DONE


def _watch(options: argparse.Namespace) -> int:
    from study.progress.watch import watch

    watch(options.directory)
    return DONE
