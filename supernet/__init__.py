"""How the shared weights of a supernet are trained, calibrated and evaluated, and the images it is trained on."""
