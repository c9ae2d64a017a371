"""Forecasts of a run: its phases, time and memory, and the size of ray chunks."""

import time

import pytest
from stub_models import RandomDenoiser, build_vlm3d, redness, tiny

from vlmreward_3d import presets
from vlmreward_3d.guidance.loading import build_guidances
from vlmreward_3d.schedule import Schedule
from vlmreward_3d.training import profiling as plan


def spans(config):
    return [(p.first, p.steps, p.views, p.resolution, p.vlm) for p in plan.phases(config)]


def test_phases_of_the_presets():
    assert spans(presets.paper("a cat")) == [
        (0, 5000, 8, 64, True),
        (5000, 10000, 8, 256, True),
    ]
    assert spans(presets.release("a cat")) == [
        (0, 5000, 8, 64, True),
        (5000, 5000, 4, 256, True),
        (10000, 10000, 4, 256, False),
    ]
    assert spans(presets.blocks("a cat")) == [(0, 300, 4, 64, True)]
    assert spans(presets.blocks("a cat", vlm=None)) == [(0, 300, 4, 64, False)]


@pytest.mark.parametrize("steps", [7, 10, 12, 97])
def test_phases_begin_where_the_run_changes(steps):
    config = tiny(
        steps=steps,
        camera__n_groups=Schedule.steps(1, (0.3, 2)),
        camera__resolution=Schedule.steps(16, (2 / 3, 8)),
        vlm__weighting__stop_at=0.5,
    )
    found = plan.phases(config)
    assert sum(phase.steps for phase in found) == steps
    for phase in found:
        for step in range(phase.first, phase.first + phase.steps):
            p = step / steps
            camera = config.camera
            now = (camera.n_groups(p) * 4, camera.resolution(p), p < 0.5)
            assert now == (phase.views, phase.resolution, phase.vlm)


class Slow(RandomDenoiser):
    def predict_noise(self, noisy, t, text, cameras):
        time.sleep(0.004 * len(noisy))
        return super().predict_noise(noisy, t, text, cameras)


def test_time_follows_the_number_of_views_and_nothing_is_changed():
    config = tiny(
        steps=40, camera__n_groups=Schedule.steps(1, (0.5, 3)), vlm__weighting__interval=2
    )
    first, second = plan.measure(config, build_guidances(config, Slow(), redness))
    asleep = 0.004 * 8, 0.004 * 24  # each view with and without its text
    assert first.seconds > asleep[0]
    assert second.seconds > asleep[1]
    assert second.seconds > 1.5 * first.seconds
    assert first.peak_memory is None
    before, after = (build_vlm3d(config, RandomDenoiser(), redness) for _ in range(2))
    guidances = build_guidances(config, RandomDenoiser(), redness)
    plan.measure(config.replace({"steps": 4}), guidances)
    assert before.step() == after.step()


def test_chunks_are_tried_up_to_all_rays_of_the_largest_phase():
    config = tiny(
        steps=40,
        camera__n_groups=Schedule.steps(1, (0.5, 3)),
        camera__resolution=Schedule.steps(16, (0.25, 24)),
    )
    measured = plan.measure_chunks(config, smallest=500)
    assert [chunk.rays for chunk in measured] == [500, 2000, 3 * 4 * 24 * 24]
    assert all(chunk.seconds > 0 and chunk.peak_memory is None for chunk in measured)


def test_the_smallest_chunk_that_is_as_fast_as_any_is_best():
    times = {100: 2.0, 400: 1.04, 1600: 1.0, 6400: 1.2}
    measured = [plan.ChunkTiming(rays, seconds, None) for rays, seconds in times.items()]
    assert plan.best_chunk(measured).rays == 400


def test_table():
    text = plan.table(
        [
            plan.Phase(0, 5000, 8, 64, True, 0.25, 20 * 2**30),
            plan.Phase(5000, 10000, 8, 256, False, 0.5, 30 * 2**30),
        ]
    )
    assert "0 to 5000     8   64 yes    0.250   20 min 50 s 20.0 GiB" in text
    assert text.splitlines()[-1].endswith(" 1 h 44 min")
