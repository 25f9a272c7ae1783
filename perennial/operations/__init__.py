"""Operations around the flows: deployment, checks of an installation, embedded servers, plans."""
