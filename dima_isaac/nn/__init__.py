"""Network layers, optimiser steps, running statistics graph capture: nothing that knows of world models or agents."""
