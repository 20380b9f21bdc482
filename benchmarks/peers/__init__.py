"""The contenders: one small class for each library, doing the same work by that library's own best means."""
