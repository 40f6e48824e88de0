"""Starting a command: its words, its pipes, its end, and what cannot be started."""

import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest
import trio
from lab_client import until

from dbproxy.errors import Code, ConfigError, DBProxyError
from dbproxy.protocols import Piped
from dbproxy.run.process import Command, dismiss, send, start

PATIENCE = 10.0
pytestmark = pytest.mark.usefixtures("no_descriptor_may_be_left")


def command(*words: str | Piped, **environment: str) -> Command:
    return Command(words, {"PATH": os.environ["PATH"]} | environment)


async def status(given: Command) -> int:
    with trio.fail_after(PATIENCE):
        return await (await start(given)).wait()


async def test_the_environment_is_the_one_that_is_given(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert await status(command("sh", "-c", f'echo "$A-$HOME" >{file}', A="x")) == 0
    assert file.read_text() == "x-\n"


@pytest.mark.parametrize(
    ("word", "content"),
    [
        (Piped(text="<config/>"), b"<config/>\n"),
        (Piped(text="größe $x"), "größe $x\n".encode()),
    ],
)
async def test_a_pipe_is_a_file_with_a_name(word: Piped, content: bytes, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert await status(command("cp", word, str(copy))) == 0
    assert copy.read_bytes() == content


async def test_files_in_a_pipe_come_one_after_the_other(tmp_path: Path) -> None:
    one, other, copy = tmp_path / "one", tmp_path / "other", tmp_path / "copy"
    one.write_bytes(b"certificate\n")
    other.write_bytes(b"key\n" * 1000)
    assert await status(command("cp", Piped((one, other)), str(copy))) == 0
    assert copy.read_bytes() == one.read_bytes() + other.read_bytes()


async def test_a_shell_makes_the_same_of_the_line_to_paste(tmp_path: Path) -> None:
    one = tmp_path / "o n'e"
    one.write_bytes(b"content")
    for word in (Piped((one,)), Piped(text="a <b> 'c'")):
        copies = [tmp_path / "by shell", tmp_path / "by us"]
        await trio.run_process(["bash", "-c", f"cp {word} '{copies[0]}'"])
        assert await status(command("cp", word, str(copies[1]))) == 0
        assert copies[0].read_bytes() == copies[1].read_bytes()


async def test_the_key_is_in_no_argument_and_no_variable(tmp_path: Path) -> None:
    key, shown = tmp_path / "key", tmp_path / "shown"
    key.write_text("SECRET")
    script = f'cat /proc/$$/cmdline /proc/$$/environ >"{shown}"'
    assert await status(command("sh", "-c", script, "sh", Piped((key,)))) == 0
    assert b"/dev/fd/" in shown.read_bytes()
    assert b"SECRET" not in shown.read_bytes()


@pytest.mark.parametrize("files", [("missing",), ("large",)])
async def test_a_file_that_cannot_be_piped_is_named(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(65537))
    with pytest.raises(ConfigError) as caught:
        await start(command("cat", Piped(tuple(tmp_path / file for file in files))))
    assert caught.value.code is Code.FILE_UNUSABLE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pipes cannot be made smaller")
@pytest.mark.parametrize("size", [4096, 4097, 9000])
async def test_a_pipe_without_room_is_an_error_and_not_waited_for(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_bytes(bytes(size))

    def make_small_pipe() -> tuple[int, int]:
        reader, writer = make_pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        return reader, writer

    make_pipe = os.pipe
    monkeypatch.setattr(os, "pipe", make_small_pipe)
    if size <= 4096:
        assert await status(command("true", Piped((file,)))) == 0
        return
    with pytest.raises(ConfigError, match=f"{size} bytes"):
        await start(command("true", Piped((file,))))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        ("nothing", Code.COMMAND_NOT_FOUND),
        ("directory", Code.COMMAND_UNUSABLE),
        ("text", Code.COMMAND_UNUSABLE),
        ("script without a first line", Code.COMMAND_UNUSABLE),
        ("script without an interpreter", Code.COMMAND_NOT_FOUND),
    ],
)
async def test_what_cannot_be_started_is_told_as_shells_tell_it(
    make: str, code: Code, tmp_path: Path
) -> None:
    path = tmp_path / "program"
    match make:
        case "directory":
            path.mkdir()
        case "text":
            path.write_text("text")
        case "script without a first line":
            path.write_text("echo hello")
            path.chmod(0o700)
        case "script without an interpreter":
            path.write_text("#!/nowhere/interpreter\n")
            path.chmod(0o700)
    with pytest.raises(DBProxyError, match=str(path)) as caught:
        await start(command(str(path), "argument"))
    assert caught.value.code is code
    assert "argument" not in caught.value.message
    assert caught.value.problem.exit_status == (127 if code is Code.COMMAND_NOT_FOUND else 126)


async def test_a_command_is_told_to_end_and_ends() -> None:
    process = await start(command("sleep", "60"))
    with trio.fail_after(PATIENCE):
        await dismiss(process, 60.0)
    assert process.returncode == -signal.SIGTERM


async def test_a_command_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while :; do sleep 0.05; done"
    process = await start(command("sh", "-c", script))
    await until(ready.exists, PATIENCE)
    with trio.fail_after(PATIENCE):
        await dismiss(process, 0.2)
    assert process.returncode == -signal.SIGKILL


async def test_cancelling_does_not_leave_a_command_behind() -> None:
    process = await start(command("sleep", "60"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await dismiss(process, 60.0)
    assert process.returncode == -signal.SIGTERM


async def test_a_signal_to_one_that_is_gone_is_nobodys_problem() -> None:
    process = await start(command(sys.executable, "-c", ""))
    await process.wait()
    send(process, signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        await dismiss(process, 0.0)
    assert process.returncode == 0
