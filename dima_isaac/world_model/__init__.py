"""DIMA's world model: normaliser, denoiser, reward and termination, decoder, and the dream they carry."""
