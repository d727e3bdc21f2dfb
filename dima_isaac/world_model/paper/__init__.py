"""What only ``preset=paper`` uses: U-Net, Perceiver, GPT, vector quantisation. Sizes are constants, as published."""
