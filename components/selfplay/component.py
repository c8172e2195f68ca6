from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def selfplay(run: str, round: str) -> str:
    """Trains the candidate by self-play; returns its digest."""
    from pipelines.executor import play_elsewhere
    from sparring.steps.entry import execute

    play_elsewhere(run, round)
    return execute("selfplay", run, round)
