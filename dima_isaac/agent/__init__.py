"""The team of policies and its critic, improved on rollouts; it cannot tell dream from reality."""
