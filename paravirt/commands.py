"""The commands, with their options and help. What they do is imported when one of them runs.

Importing typer and parsing with it takes as long as a small guest runs: cli_words.py reads a plain ``boot`` without.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="paravirt", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Boots i386 kernels through an abstract paravirt_ops hook specification, with pluggable backends.")

PluginsFile = Annotated[Path | None, typer.Option("--plugins", metavar="FILE", help="the plugins.toml to use")]
STATUS = """Exit status: 0 power-off, reboot, halt, awaited output or --until's step; the guest's own value for a
write to port 0xf4; 70 crash or idle for ever; 124 timeout or instruction limit; 129/130/143 interrupted; 141 stdout
closed; 2 usage or an error in a backend."""


def run() -> int | None:
    """Run the command of this process's command line. Returns its exit status.

    :raises Exception: one with a method `format_message` tells what is wrong with the command line.
    """
    _add_plugin_commands()
    status: int | None = app(standalone_mode=False, prog_name="paravirt")
    return status


def _add_plugin_commands() -> None:
    """Commands of plugins; loading them costs time, so only where the command is not one of ours."""
    own = {command.name or (command.callback.__name__ if command.callback else "")
           for command in app.registered_commands}
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if not words or words[0] in own:
        return
    from paravirt.config import config_path, load_config
    from paravirt.plugins import load_plugins

    load_plugins(load_config(config_path())).manager.hook.paravirt_commands(app=app)


@app.command(epilog=STATUS)
def boot(
    kernel: Annotated[Path | None, typer.Argument(help="ELF, bzImage, multiboot; default: reference kernel")] = None,
    backend: Annotated[str, typer.Option(help="backend to boot on, or auto")] = "auto",
    option: Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="a backend's option")] = None,
    initrd: Annotated[Path | None, typer.Option(help="initial RAM disk")] = None,
    append: Annotated[str, typer.Option(help="the kernel's command line")] = "",
    memory: Annotated[str, typer.Option(help="RAM, as 128M, 128MiB or bytes")] = "128M",
    vcpus: Annotated[int, typer.Option(help="virtual CPUs; one is supported")] = 1,
    engine: Annotated[str, typer.Option(help="auto, or portable: public Unicorn interface only")] = "auto",
    no_accel: Annotated[list[str] | None, typer.Option(metavar="NAME", help="leave one speed-up out")] = None,
    count_ops: Annotated[bool, typer.Option("--count-ops", help="count every op, inlined ones too")] = False,
    count_modes: Annotated[bool, typer.Option(
        "--count-modes", help="count instructions of user mode apart; slower")] = False,
    trace_ops: Annotated[Path | None, typer.Option(
        metavar="FILE", help="write a line for each op that a real Linux calls")] = None,
    noreplace: Annotated[bool, typer.Option("--noreplace-paravirt", help="patch no call sites")] = False,
    until: Annotated[str | None, typer.Option(metavar="STEP", help="stop after a step of the boot")] = None,
    until_output: Annotated[str | None, typer.Option(metavar="REGEX", help="stop when the output matches")] = None,
    mark: Annotated[str | None, typer.Option(
        metavar="REGEX", help="put the counters into the record at each match in the output")] = None,
    sample: Annotated[float | None, typer.Option(
        metavar="MS", help="put the counters into the record every so many virtual milliseconds")] = None,
    timeout: Annotated[float | None, typer.Option(help="wall seconds")] = None,
    max_instructions: Annotated[int | None, typer.Option(help="instructions")] = None,
    idle_limit: Annotated[float, typer.Option(help="virtual seconds without output or input; 0: no limit")] = 600.0,
    realtime: Annotated[bool | None, typer.Option(
        "--realtime/--virtual-time", help="idle time passes as on the wall; default: if stdin is a terminal")] = None,
    rtc: Annotated[str, typer.Option(help="'now', or a fixed date")] = "fixed",
    console: Annotated[str, typer.Option(metavar="stdio|FILE|none", help="where the guest's console goes")] = "stdio",
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the record")] = None,
    trace: Annotated[Path | None, typer.Option(
        metavar="FILE", help="write exits, ops and modes: Chrome trace JSON, or .jsonl")] = None,
    trace_limit: Annotated[int, typer.Option(help="events that a trace keeps")] = 1_000_000,
    stats: Annotated[bool, typer.Option("--stats", help="print what the run cost")] = False,
    screen: Annotated[bool, typer.Option("--screen", help="print the text screen at the end")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print neither steps nor progress")] = False,
    plugins: PluginsFile = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Boot a kernel on a backend."""
    from paravirt.cli_boot import Request, boot_command

    raise typer.Exit(boot_command(Request(
        kernel, backend, tuple(option or ()), initrd, append, memory, vcpus, engine, tuple(no_accel or ()), count_ops,
        count_modes, trace_ops, noreplace, until, until_output, mark, sample,
        timeout, max_instructions, idle_limit, realtime, rtc, console, json_file,
        trace, trace_limit, stats, screen, quiet, plugins)))


@app.command(epilog="Exit status: 0 the backends agree, 1 they differ, 70 a run failed, 130 interrupted, 2 usage.")
def compare(
    kernel: Annotated[Path | None, typer.Argument(help="ELF, bzImage, multiboot; default: reference kernel")] = None,
    backends: Annotated[str, typer.Option(
        metavar="A,B:KEY=VALUE", help="backends, each with options of its own; default: all that can run it")] = "",
    suite: Annotated[str | None, typer.Option(help="lmbench: what each operation of the kernel costs")] = None,
    initrd: Annotated[Path | None, typer.Option(help="initial RAM disk")] = None,
    append: Annotated[str, typer.Option(help="the kernel's command line")] = "",
    memory: Annotated[str, typer.Option(help="RAM, as 128M, 128MiB or bytes")] = "128M",
    engine: Annotated[str, typer.Option(help="auto, or portable: public Unicorn interface only")] = "auto",
    count_ops: Annotated[bool, typer.Option(
        "--count-ops", help="count the ops of a kernel that has tables of its own, too")] = False,
    timeout: Annotated[float, typer.Option(help="wall seconds of each run")] = 600.0,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write all that was found")] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="write an HTML page with plots")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print no progress")] = False,
    plugins: PluginsFile = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Boot a kernel on several backends: do they agree, and what does each cost?"""
    from paravirt.compare.command import Request, compare_command

    words = ["--append", append, "--memory", memory, "--engine", engine, "--timeout", str(timeout)]
    words += ["--initrd", str(initrd)] if initrd is not None else []
    raise typer.Exit(compare_command(Request(
        kernel, backends, suite, count_ops, tuple(words), json_file, report, plugins, quiet)))


@app.command()
def inspect(
    kernel: Annotated[Path, typer.Argument(help="ELF, bzImage or multiboot kernel")],
    plugins: PluginsFile = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Show a kernel's notes, op tables, call sites, and what every backend says to it."""
    from paravirt.listing import inspect_kernel

    inspect_kernel(kernel, plugins)


@app.command("trace")
def show_trace(
    file: Annotated[Path, typer.Argument(help="what --trace wrote")],
    top: Annotated[int, typer.Option(help="rows of each lane")] = 15,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Summarise a trace: how often each event came, and how long it took in virtual time."""
    from paravirt.listing import trace_summary

    trace_summary(file, top)


@app.command("new-backend")
def new_backend(
    name: Annotated[str, typer.Argument(help="its name: lower-case letters, digits, _")],
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Create ./paravirt-NAME, an installable backend that passes the conformance suite as it is."""
    from paravirt.scaffold.make import make_backend

    path = make_backend(name, Path())
    print(f"{path}: install it with\n  pip install --no-build-isolation ./{path}\nthen\n"
          f"  paravirt boot --backend {name}\n  pytest --pyargs paravirt.conformance --paravirt-backend {name}")


@app.command("plugins")
def list_plugins(
    plugins: PluginsFile = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """List plugins, the backends they offer and their options, and what could not be loaded."""
    from paravirt.listing import plugin_listing

    plugin_listing(plugins)


@app.command()
def ops(
    backend: Annotated[str, typer.Option(help="one backend; default: all")] = "all",
    kernel: Annotated[Path | None, typer.Option(help="a paravirt kernel; default: the reference kernel")] = None,
    plugins: PluginsFile = None,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """List op by op what a backend does."""
    from paravirt.listing import op_listing

    op_listing(backend, kernel, plugins)
