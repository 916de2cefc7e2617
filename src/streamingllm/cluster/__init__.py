"""Many engines behind one address: Ray Serve places them, sessions move between them."""
