"""Client-side load: data sets, the loads that schedule requests, and the sender that times them."""
