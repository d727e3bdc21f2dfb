"""The replay: rows of every environment on the learner's device, and the windows drawn from them."""
