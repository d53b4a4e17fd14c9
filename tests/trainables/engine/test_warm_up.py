"""The step before the first trial's: it leaves nothing behind, and no error."""

from __future__ import annotations

from search_spaces.trial_config import TARGET_SETS
from tests.support.small_engines import config, join, make_engine
from trainables.packed import training as training_module


def test_a_warm_up_trains_a_scratch_adapter_that_leaves_nothing_behind(monkeypatch):
    engine, stepped = make_engine(), []
    real = training_module.run_pass

    def run_pass(model, members, rows, one):
        stepped.append((members[0].adapter.config.target_modules, len(members[0].plan)))
        return real(model, members, rows, one)

    monkeypatch.setattr(training_module, "run_pass", run_pass)
    engine.warm_up()
    assert stepped == [(tuple(TARGET_SETS["all_linear"]), 1)]
    assert not engine.residents
    monkeypatch.setattr(training_module, "run_pass", lambda *pass_: (_ for _ in ()).throw(RuntimeError("no kernel")))
    engine.warm_up()  # a trial will find it, and say so


def test_a_card_warms_up_once_and_only_while_nobody_waits(monkeypatch):
    idle, wanted, on_cpu = make_engine(), make_engine(), make_engine()
    warmed = []
    for engine in (idle, wanted, on_cpu):
        monkeypatch.setattr(engine, "warm_up", lambda engine=engine: warmed.append(engine))
    idle._is_warm = wanted._is_warm = False  # as over a card
    assert idle.work()
    assert not idle.work()
    assert not on_cpu.work()
    join(wanted, {"first": config()})
    assert wanted.work()
    wanted.leave("first", 0)
    assert not wanted.work()
    assert warmed == [idle]
