"""Who is who: keys, signatures, certificates, and the roster of a study."""
