"""vidadapt: adapt large pre-trained video transformers by training a few per cent of them."""
