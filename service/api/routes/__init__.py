"""Operations and routers, one per file."""
