"""Network layers, optimiser steps, running statistics and graph capture, for world models and agents alike."""
