"""What operators do around the flows: deploying, checking an installation, embedded servers, plans."""
