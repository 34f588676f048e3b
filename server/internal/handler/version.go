package handler

import (
	"strings"

	"golang.org/x/mod/semver"
)

// isOlder reports whether a version is older than another one. Both must be releases, with or without a leading v:
// the order of development builds says nothing, nor does a build whose version git has made up after a release.
func isOlder(version, than string) bool {
	a, b := release(version), release(than)
	return a != "" && b != "" && semver.Compare(a, b) < 0
}

// release returns a version as package semver expects it, or "" if it is not that of a release.
func release(version string) string {
	v := "v" + strings.TrimPrefix(version, "v")
	// Canonical differs if a number is missing, or if there is build metadata.
	if semver.Canonical(v) != v || semver.Prerelease(v) != "" {
		return ""
	}
	return v
}
