"""The team of policies and its critic, improved on rollouts, whether these are dreamt or real."""
