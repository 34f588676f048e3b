// Package update replaces a program by a newer one of a release that the panel hands out.
//
// A release is a directory of archives with the file SHA256SUMS, as sha256sum writes it,
// and SHA256SUMS.sig, the Ed25519 signature (RFC 8032, 64 bytes) of that file's bytes. An
// archive is named eclitunnel_VERSION_OS_ARCH.tar.gz, or .zip for Windows. [Find] checks the
// signature before it believes a name or a checksum, [Release.Fetch] checks the archive
// before it opens it, and runs the program in it before that takes the place of another.
//
// [Install] and [Swap] replace a program while it runs. The one before stays beside it, with
// the ending .old, and a crash at any moment leaves one of the two in its place. [Trial]
// records that a program has yet to show that it works.
//
// The package starts no goroutines.
package update
