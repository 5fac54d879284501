"""The whole configuration of one node of the story, as BIRD reads it.

A wanted change: `python -m tests.golden.test_bird_story > tests/golden/bird_story.conf`.
"""

from __future__ import annotations

from pathlib import Path

from podwire.desired.bgpcompute import compute_bird
from podwire.desired.bgptext import render
from tests.fakes.story_cluster import story_cluster

GOLDEN = Path(__file__).with_name("bird_story.conf")


def story() -> str:
    config = compute_bird(story_cluster(), "vms103")
    assert config is not None
    return render(config, {})


def test_the_story_s_node_is_told_this() -> None:
    assert story() == GOLDEN.read_text()


if __name__ == "__main__":
    print(story(), end="")
