"""How long work shows itself."""

from rich.progress import Progress

from esn_core.system import command_line


def test_the_clock_goes_on_while_the_only_step_of_a_phase_is_made():
    """A phase of one step is done, by its count, from its first moment on."""
    now = [0.0]
    progress = Progress(get_time=lambda: now[0])
    progress.update(progress.add_task("evaluation", total=1), completed=1)
    (task,) = progress.tasks
    assert task.finished
    shown = []
    for now[0] in (3.0, 65.0):
        shown.append(command_line._Clock().render(task).plain)
    assert shown == ["0:00:03", "0:01:05"]
