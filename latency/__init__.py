"""What a network costs on a device, measured: devices, timing, measurements and their store, lowering, counts."""
