"""The faults that the soak injects: while trials are at work, while a study ends, and once it has ended."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress

from tests.benchmarks.support.disturbed_study import DisturbedStudy
from tests.test_whole_study import start

Fault = Callable[[DisturbedStudy, random.Random], bool]  # returns whether it hit; the study is then continued
GARBAGE = (b"", b"null", b"[]", b'{"number": 1, "left": 7}', b"[" * 5000, bytes(range(256)), b'{"statuses": [{"st')


# -- while trials are at work ------------------------------------------------------------------------------------------


def kill_host(one: DisturbedStudy, chance: random.Random) -> bool:
    """The process that holds the base model."""
    return one.kill_process("BaseModelHost")


def kill_trial(one: DisturbedStudy, chance: random.Random) -> bool:
    """A trial's own process."""
    return one.kill_process("LoraTrial")


def kill_driver(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver, with -9."""
    one.end_driver(signal.SIGKILL)
    one.resume()
    return True


def stop_driver(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver, asked to end: trials at work write checkpoints."""
    one.end_driver(signal.SIGTERM)
    one.resume()
    return True


def kill_while_stopping(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver, asked to end and killed while the trials' checkpoints are written."""
    one.driver.send_signal(signal.SIGTERM)
    time.sleep(chance.uniform(0.0, 1.5))
    one.end_driver(signal.SIGKILL)
    one.resume()
    return True


def kill_while_resuming(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and the next one before it trains."""
    one.end_driver(signal.SIGKILL)
    one.resume()
    time.sleep(chance.uniform(0.3, 6.0))
    one.end_driver(signal.SIGKILL)
    one.resume()
    return True


def tear_results(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed in the middle of writing a record."""
    one.end_driver(signal.SIGKILL)
    with one.results.open("ab") as out:
        out.write(b'{"study": "made-up", "trial_id": "t00')
    one.resume()
    return True


def alter_results(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and a record damaged in the middle of the file: its trial has to run again."""
    if not one.seen:
        return False
    one.end_driver(signal.SIGKILL)
    trial_id = chance.choice(sorted(one.seen))
    line = one.seen.pop(trial_id).encode()
    middle = len(line) // 2
    damaged = chance.choice([line[:middle] + b"\0" * 16 + line[middle + 16 :], line[:middle], line[::-1]])
    one.results.write_bytes(one.results.read_bytes().replace(line, damaged))
    one.resume()
    return True


def tear_checkpoints(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and the newest checkpoint of every trial cut short."""
    one.end_driver(signal.SIGKILL)
    for trial in {file.parents[1] for file in (one.directory / "tune").glob("*/*/checkpoint_*/*.safetensors")}:
        newest = max(trial.glob("checkpoint_*/*.safetensors"), key=lambda file: file.stat().st_mtime)
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    one.resume()
    return True


def fill_disk(one: DisturbedStudy, chance: random.Random) -> bool:
    """No room for the next record: the driver must end by itself."""
    one.fill_disk()
    one.end_driver()
    one.resume()
    return True


def fill_disk_for_adapters(one: DisturbedStudy, chance: random.Random) -> bool:
    """No room for the next adapter, in the process that writes them: the driver must end by itself."""
    if not one.fill_disk("HostKeeper"):
        return False
    code = one.end_driver()
    one.resume()
    return code != 0  # else the last adapter was written already


def scramble_live_file(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and garbage in live.json, over which `watch` and `resume` go."""
    one.end_driver(signal.SIGKILL)
    (one.directory / "live.json").write_bytes(chance.choice(GARBAGE))
    one.resume()
    return True


def delete_database(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and the search's database deleted: it is made again from the records."""
    one.end_driver(signal.SIGKILL)
    (one.directory / "optuna.db").unlink(missing_ok=True)
    one.resume()
    return True


def lock_database(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and the search's database locked for some seconds while the next one opens it."""
    one.end_driver(signal.SIGKILL)
    with closing(sqlite3.connect(one.directory / "optuna.db", isolation_level=None)) as viewer:
        viewer.execute("BEGIN EXCLUSIVE")
        one.resume()
        time.sleep(chance.uniform(2.0, 20.0))
    if one.driver.poll() is not None:  # it has said what holds the database
        one.end_driver()
        one.resume()
    return True


def move_directory(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed, and the study copied elsewhere, continued there, and gone from its first place."""
    one.end_driver(signal.SIGKILL)
    place = one.directory.with_name(f"{one.directory.name}x")
    shutil.copytree(one.directory, place, symlinks=True)
    shutil.rmtree(one.directory)
    place.rename(one.directory)
    one.move(place)
    one.resume()
    return True


# -- while a study ends ------------------------------------------------------------------------------------------------


def kill_while_reporting(one: DisturbedStudy, chance: random.Random) -> bool:
    """The driver killed once all trials have ended: table, report and adapters are what is at stake."""
    time.sleep(chance.uniform(0.0, 3.0))
    hit = one.driver.poll() is None
    one.end_driver(signal.SIGKILL)
    one.resume()
    return hit


def fill_disk_while_reporting(one: DisturbedStudy, chance: random.Random) -> bool:
    """No room for table and report: the study is complete all the same."""
    one.fill_disk()
    code = one.end_driver()
    if code != 0:
        raise RuntimeError(f"a complete study ended with exit code {code}:\n{one.said}")
    one.resume()
    return True


# -- once a study has ended --------------------------------------------------------------------------------------------


def kill_report(one: DisturbedStudy, chance: random.Random) -> bool:
    """The command `report` killed on its way."""
    command = start("report", str(one.directory))
    time.sleep(chance.uniform(0.5, 5.0))
    hit = command.poll() is None
    command.kill()
    command.communicate()
    return hit


def block_report(one: DisturbedStudy, chance: random.Random) -> bool:
    """A folder in the report's place: the study is complete all the same, and the report is made once it is away."""
    file = one.directory / "report.html"
    with suppress(FileNotFoundError):
        file.unlink()
    (file / "inside").mkdir(parents=True)
    one.resume()
    code = one.end_driver()
    if code != 0 or "The report could not be written" not in one.said:
        raise RuntimeError(f"a complete study ended with exit code {code}:\n{one.said}")
    shutil.rmtree(file)
    one.resume()
    if one.end_driver() != 0 or not file.is_file():
        raise RuntimeError(f"its report was not made again:\n{one.said}")
    return True


AT_WORK: dict[str, Fault] = {
    "host killed": kill_host,
    "trial killed": kill_trial,
    "driver killed": kill_driver,
    "driver stopped": stop_driver,
    "driver killed while it stops": kill_while_stopping,
    "driver killed while it resumes": kill_while_resuming,
    "results torn": tear_results,
    "results altered": alter_results,
    "checkpoints torn": tear_checkpoints,
    "disk full for a record": fill_disk,
    "disk full for an adapter": fill_disk_for_adapters,
    "live file scrambled": scramble_live_file,
    "database deleted": delete_database,
    "database locked": lock_database,
    "directory moved": move_directory,
}
ENDING: dict[str, Fault] = {
    "driver killed while it reports": kill_while_reporting,
    "disk full while it reports": fill_disk_while_reporting,
}
ENDED: dict[str, Fault] = {
    "report killed": kill_report,
    "report blocked": block_report,
}
CONFIRMING: dict[str, Fault] = {  # injected into `confirm`
    "confirm: host killed": kill_host,
    "confirm: driver killed": kill_driver,
    "confirm: driver stopped": stop_driver,
    "confirm: driver killed while it resumes": kill_while_resuming,
    "confirm: disk full for a record": fill_disk,
    "confirm: results torn": tear_results,
}
EVERY = (*AT_WORK, *ENDING, *ENDED, *CONFIRMING)
WHILE_SAVING_REPORTING_CONFIRMING_OR_RESUMING = (
    *ENDING,
    *ENDED,
    *CONFIRMING,
    "driver killed while it stops",
    "driver killed while it resumes",
    "results torn",
    "disk full for a record",
    "disk full for an adapter",
)
