from kfp import dsl

from components import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def selfplay(run: str, round: str) -> str:
    """Trains the candidate by self-play; returns its digest."""
    from pipelines.trainjob_body import asked_for
    from sparring.steps.entry import execute

    if asked_for():
        from pipelines.trainjob import play_as_job

        play_as_job(run, round)  # leaves the result in the store, where the next line finds it
    return execute("selfplay", run, round)
