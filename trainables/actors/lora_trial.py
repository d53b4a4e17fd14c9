"""The Tune trainable: joins a host, carries reports and regular checkpoints to Tune, outlives its host."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search_spaces.trial_config import TrialConfig
from trainables.actors.base_model_host import HostLoadError
from trainables.memory.offload import Offload
from trainables.protocol import REPORT_STEPS, STATE_FILE, JoinRequest, News, NotResidentError, Outcome
from trainables.timeline import timeline

POLL_SECONDS = 5.0
REPLY_SECONDS = 300.0  # a host that does not reply for so long counts as dead
LOAD_SECONDS = 3600.0  # a large base model may have to be fetched and quantized first
CHECKPOINT_SECONDS = 30.0
LEAVING_SECONDS = 5.0  # between checkpoints on a node that is about to be taken away
CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into checkpoints
MAX_HOST_DEATHS = 10  # without a step of progress in between
MAX_DEATHS_ALONE = 2  # with this trial as the only one at work: it is the guilty one


class LoraTrial(tune.Trainable):
    """One trial. Its config holds `trial_id`, `config` (a TrialConfig's values), `keeper` (the actor's name),
    `resources` (what it asks Ray for, in one bundle), and optionally `offload` (the values of what is to wait in host
    memory) and `resume_from`, an earlier checkpoint's folder.

    Results carry `step`, and a Report's values where the evaluation split was measured, of which `so_far` is JSON; the
    last one is `done` and carries `record_status`, `reason` and `outcome`, an Outcome's values as JSON.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """What the trial asks Ray for; not given by `tune.with_resources`, which hides the class' name."""
        return tune.PlacementGroupFactory([dict(config["resources"])])

    def __repr__(self) -> str:
        config = getattr(self, "_config", None)  # Ray asks before `setup` too, where that is cut short
        return f"LoraTrial({config.precision})" if config else "LoraTrial"  # an actor is used for trial after trial

    def setup(self, config: dict[str, Any]) -> None:
        """Begins a trial; joining waits for the first step, since a checkpoint may follow."""
        timeline.begin(f"trial {config['trial_id']}")
        self._trial_id: str = config["trial_id"]
        self._config = TrialConfig.from_dict(config["config"])
        self._offload = Offload(**config.get("offload", {}))
        self._keeper = ray.get_actor(config["keeper"])
        self._host: Any = None
        self._incarnation = -1
        self._state = _read_state(config.get("resume_from"))
        self._seen = 0  # reports of this incarnation
        self._told_step = -1  # the last step whose report Tune has
        self._step = self._state_step = 0
        self._deaths = 0
        self._suspect = False
        self._state_time = time.monotonic()
        self._state_seconds = 0.0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Leaves under the old trial's id, and begins the new trial in the same actor."""
        self._leave()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Waits until there is something to tell Tune."""
        told_at = self._step
        while True:
            try:
                self._join()
                news = self._ask()
            except ValueError:
                if self._state is None:
                    raise
                self._state = None  # it cannot be read, or is another model's: the trial begins again
                continue
            except HostLoadError as error:
                if ray.get(self._keeper.loads_anew.remote(self._host), timeout=REPLY_SECONDS):
                    self._host = None
                    continue
                return self._ending(Outcome("failed", f"the base model could not be loaded: {error}"))
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, NotResidentError) as error:
                reason = self._survive(error)
                if reason:
                    return self._ending(Outcome("failed", reason, str(error)))
                continue
            except TimeoutError:  # the host lives, and is long at one unit of work: it is asked again
                if self._incarnation < 0:
                    self._host = None  # or the keeper would take it for one that was seen to die, and end it
                continue
            if news.outcome:
                return self._ending(news.outcome)
            result = self._news_for_tune(news, told_at)
            if result:
                return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Writes the state that was last fetched from the host."""
        if self._state is not None:
            (Path(checkpoint_dir) / STATE_FILE).write_bytes(self._state)

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Continues from a checkpoint: the next step joins with it."""
        self._leave()
        self._state = _read_state(checkpoint)

    def cleanup(self) -> None:
        """Leaves the host."""
        self._leave()

    # -- the host -----------------------------------------------------------------------------------------------------

    def _join(self) -> None:
        if self._incarnation >= 0:
            return
        context = ray.get_runtime_context()
        gpu_ids = [str(gpu) for gpu in ray.get_gpu_ids()]
        where = (context.get_node_id(), gpu_ids, self._config.precision, self._offload)
        self._host = ray.get(self._keeper.host_for.remote(*where, dead=self._host), timeout=REPLY_SECONDS)
        incarnation = ray.get(self._keeper.next_incarnation.remote(self._trial_id), timeout=REPLY_SECONDS)
        request = JoinRequest(self._trial_id, incarnation, self._config, self._state, self._suspect)
        with timeline.stage("joining"):  # until the host has loaded
            ray.get(self._host.join.remote(request, context.get_actor_id()), timeout=LOAD_SECONDS)
        self._keeper.note_trial_stages.remote(timeline.stages())
        self._incarnation, self._seen = incarnation, 0

    def _ask(self) -> News:
        question = self._host.advance.remote(self._trial_id, self._incarnation, self._seen, POLL_SECONDS)
        news = ray.get(question, timeout=REPLY_SECONDS)
        if news.step > self._state_step:
            self._deaths, self._suspect = 0, False
        return news

    def _survive(self, error: Exception) -> str | None:
        """Prepares to join again from the last state; returns the reason where the trial must end instead."""
        self._incarnation = -1
        self._deaths += 1
        if isinstance(error, NotResidentError):
            self._host = None  # it lives, and only does not know this incarnation
        else:
            self._suspect = True
            deaths_alone = ray.get(self._keeper.deaths_alone.remote(self._trial_id), timeout=REPLY_SECONDS)
            if deaths_alone >= MAX_DEATHS_ALONE:
                return f"its host died {deaths_alone} times while it was the only one at work"
        return f"its host died {self._deaths} times" if self._deaths > MAX_HOST_DEATHS else None

    def _leave(self) -> None:
        if self._incarnation >= 0:
            self._host.leave.remote(self._trial_id, self._incarnation)
        self._incarnation = -1

    # -- what Tune gets -----------------------------------------------------------------------------------------------

    def _news_for_tune(self, news: News, told_at: int) -> dict[str, Any] | None:
        self._seen += len(news.reports)
        self._step = news.step
        fresh = [report for report in news.reports if report.step > self._told_step]
        due = self._checkpoint_due(news.leaving) and self._has_progress(news, told_at)
        if not fresh and not due:
            return None
        result: dict[str, Any] = {"study_trial_id": self._trial_id, "step": news.step}
        if fresh:
            self._told_step = fresh[-1].step
            so_far = fresh[-1].so_far and json.dumps(asdict(fresh[-1].so_far))
            result |= {**asdict(fresh[-1]), "so_far": so_far}
        if due and self._fetch_state():
            result["should_checkpoint"] = True
        elif not fresh:
            return None
        return result

    def _checkpoint_due(self, leaving: bool) -> bool:
        pause = max(CHECKPOINT_SECONDS, self._state_seconds / CHECKPOINT_SHARE)
        if leaving:
            pause = max(LEAVING_SECONDS, self._state_seconds)
        return time.monotonic() - self._state_time > pause

    def _has_progress(self, news: News, told_at: int) -> bool:
        if news.leaving:
            return news.step > self._state_step
        return news.step - max(told_at, self._state_step) >= REPORT_STEPS

    def _fetch_state(self) -> bool:
        """Fetches the trial's state; False where its host is too busy or has died, which the next step will notice."""
        started = time.monotonic()
        question = self._host.state.remote(self._trial_id, self._incarnation)
        try:
            self._state = ray.get(question, timeout=REPLY_SECONDS)
            self._state_step = self._step
            return True
        except (ray.exceptions.RayActorError, NotResidentError, TimeoutError):
            return False
        finally:
            self._state_time = time.monotonic()
            self._state_seconds = self._state_time - started

    def _ending(self, outcome: Outcome) -> dict[str, Any]:
        self._leave()
        return {
            "study_trial_id": self._trial_id,
            "step": self._step,
            "record_status": outcome.status,
            "reason": outcome.reason,
            "outcome": json.dumps(asdict(outcome)),
            "done": True,
        }


def _read_state(folder: Any) -> bytes | None:
    if folder is None:
        return None
    if "://" in str(folder):
        return _stored_state(f"{folder}/{STATE_FILE}")
    file = Path(str(folder)) / STATE_FILE
    return file.read_bytes() if file.exists() else None


def _stored_state(url: str) -> bytes | None:
    """A checkpoint in an object store; None where it is not there any more."""
    from pyarrow import fs

    system, path = fs.FileSystem.from_uri(url)
    try:
        state: bytes = system.open_input_file(path).readall()
    except FileNotFoundError:
        return None
    return state
