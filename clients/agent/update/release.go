package update

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/semver"
)

const (
	sumsFile      = "SHA256SUMS"
	signatureFile = sumsFile + ".sig"
	// maxSums and maxArchive bound what is downloaded, in bytes. A release has a dozen
	// lines, and its archive of the agent 6 MB.
	maxSums    = 64 << 10
	maxArchive = 64 << 20
)

// Errors of Find and Fetch. Each means that nothing has been replaced.
var (
	// ErrNoKey means that this build has no key to check signatures with.
	ErrNoKey = errors.New("this build of the agent has no key to check the signatures of releases with")
	// ErrSignature means that the release is not signed with the key of this build.
	ErrSignature = errors.New("the release is not signed with the key that this agent trusts")
	// ErrChecksum means that an archive is not the one that SHA256SUMS lists.
	ErrChecksum = errors.New("the checksum is wrong")
	// ErrNotOffered means that the release has no archive of the wanted version for this
	// platform.
	ErrNotOffered = errors.New("the panel has no such agent")
)

// Source downloads a file of a release to w, and fails if it has more than limit bytes.
type Source func(ctx context.Context, name string, limit int64, w io.Writer) error

// Key is the public key that signs releases. The zero value is of a build without one.
type Key struct{ public ed25519.PublicKey }

// ParseKey parses a key as a build has it: 32 bytes in base64, or "" for none.
func ParseKey(text string) (Key, error) {
	if text == "" {
		return Key{}, nil
	}
	public, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return Key{}, fmt.Errorf("the release key of this build is not an Ed25519 key in base64")
	}
	return Key{public}, nil
}

// Known reports whether there is a key.
func (k Key) Known() bool { return k.public != nil }

// Release is an archive of the agent that a panel hands out.
type Release struct {
	Version string
	// Archive is the archive's name.
	Archive string
	// Signed reports whether the signature was checked. It is false only without a key.
	Signed bool

	sum [32]byte
}

// Query says what Find looks for.
type Query struct {
	// Key checks the signature. Without one, Find fails with ErrNoKey unless Unsigned.
	Key Key
	// Unsigned permits a release whose signature nobody checks. It has no effect where there
	// is a Key.
	Unsigned bool
	// Platform is as in names of archives, such as linux_armv7. "" is that of this program.
	Platform string
	// Version is the one to find. "" finds the newest.
	Version string
}

// listed is a line of SHA256SUMS about an archive of the agent.
var listed = regexp.MustCompile(`(?m)^([0-9a-f]{64}) [ *](eclitunnel_([A-Za-z0-9][A-Za-z0-9.+~-]*)_([a-z0-9]+_[a-z0-9]+)\.(?:tar\.gz|zip))\r?$`)

// Find returns the archive of a release that the query is for.
func Find(ctx context.Context, source Source, q Query) (Release, error) {
	if !q.Key.Known() && !q.Unsigned {
		return Release{}, ErrNoKey
	}
	if q.Platform == "" {
		q.Platform = Platform()
	}
	var sums bytes.Buffer
	if err := source(ctx, sumsFile, maxSums, &sums); err != nil {
		return Release{}, err
	}
	if q.Key.Known() {
		var signature bytes.Buffer
		if err := source(ctx, signatureFile, ed25519.SignatureSize, &signature); err != nil {
			return Release{}, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		if !ed25519.Verify(q.Key.public, sums.Bytes(), signature.Bytes()) {
			return Release{}, ErrSignature
		}
	}
	found := Release{Signed: q.Key.Known()}
	for _, line := range listed.FindAllSubmatch(sums.Bytes(), -1) {
		version := string(line[3])
		wanted := q.Version == "" && Newer(version, found.Version) || q.Version != "" && canonical(version) == canonical(q.Version)
		if string(line[4]) != q.Platform || !wanted {
			continue
		}
		found.Version, found.Archive = version, string(line[2])
		_, _ = hex.Decode(found.sum[:], line[1]) // The pattern permits nothing else.
	}
	switch {
	case found.Archive != "":
		return found, nil
	case q.Version != "":
		return Release{}, fmt.Errorf("%w: version %s for %s", ErrNotOffered, q.Version, q.Platform)
	default:
		return Release{}, fmt.Errorf("%w: none for %s", ErrNotOffered, q.Platform)
	}
}

// Newer reports whether a version is a later one than another, by Semantic Versioning
// 2.0.0. Any is later than one that is no version of that kind, and none of those is later
// than another.
func Newer(version, than string) bool {
	a, b := canonical(version), canonical(than)
	return semver.IsValid(a) && semver.Compare(a, b) > 0
}

// Comparable reports whether a version is one of Semantic Versioning, of which others are
// newer or older.
func Comparable(version string) bool { return semver.IsValid(canonical(version)) }

func canonical(version string) string { return "v" + strings.TrimPrefix(version, "v") }

// Platform returns what names of archives call the platform that this program was built for.
func Platform() string {
	arch := runtime.GOARCH
	if arch == "arm" {
		arch = "armv6" // Runs on later processors too.
		if info, ok := debug.ReadBuildInfo(); ok {
			arch = armOf(info.Settings)
		}
	}
	return runtime.GOOS + "_" + arch
}

// armOf returns what names of archives call the 32-bit ARM that a build is for.
func armOf(settings []debug.BuildSetting) string {
	for _, s := range settings {
		if s.Key == "GOARM" && strings.HasPrefix(s.Value, "7") {
			return "armv7"
		}
	}
	return "armv6"
}
