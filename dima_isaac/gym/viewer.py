"""Isaac Gym's viewer, which is MuJoCo's window here: on one environment, ``[`` and ``]`` walk through them."""

from dima_isaac.gym.simulation import Simulation
from dima_isaac.sim import render


class Viewer:
    """What ``create_viewer`` gives; ESC, V and R of Isaac Gym's programs have no effect, closing the window has."""

    def __init__(self, sim: Simulation) -> None:
        """Open the window.

        Raises:
            UsageError: there is no display.
        """
        self._window, self.closed = render.Viewer(sim.engine), False

    def draw(self) -> None:
        """Show the state of the last step."""
        self.closed = self.closed or not self._window.show()

    def close(self) -> None:
        """Close the window."""
        self._window.close()
        self.closed = True
