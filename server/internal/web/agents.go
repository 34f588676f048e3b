package web

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	sumsFile      = "SHA256SUMS"
	signatureFile = sumsFile + ".sig"
	// maxSums is more than any release's SHA256SUMS takes.
	maxSums = 64 << 10
)

// sumLine is a line of SHA256SUMS, as sha256sum writes it. The name is one of no directory
// and of no hidden file.
var sumLine = regexp.MustCompile(`(?m)^([0-9a-f]{64}) [ *]([A-Za-z0-9][A-Za-z0-9._+~-]*)\r?$`)

// Agents are what a panel hands out for people's machines: the files of a release that the
// SHA256SUMS in their directory lists. The directory is read at each request, so that a new
// release in it takes effect at once. The zero value has none.
type Agents struct {
	// Dir is their directory; empty has none.
	Dir string
}

// errNoAgents means that no directory is configured.
var errNoAgents = errors.New("no directory with agents is configured or found")

// Check returns nil if there is an agent to hand out, otherwise why there is none.
func (a Agents) Check() error {
	_, sums, err := a.sums()
	if err != nil {
		return err
	}
	for name := range sums {
		if !isAgent(name) {
			continue
		}
		if info, err := os.Stat(filepath.Join(a.Dir, name)); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}
	return fmt.Errorf("%s lists no agent that is there", filepath.Join(a.Dir, sumsFile))
}

// isAgent reports whether a file is an archive of the agent, which the scripts install.
func isAgent(name string) bool {
	return strings.HasPrefix(name, "eclitunnel_") && (strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".zip"))
}

// sums returns SHA256SUMS, and the checksums by name.
func (a Agents) sums() ([]byte, map[string]string, error) {
	if a.Dir == "" {
		return nil, nil, errNoAgents
	}
	file, err := os.Open(filepath.Join(a.Dir, sumsFile))
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxSums+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxSums {
		return nil, nil, fmt.Errorf("%s has more than %d bytes", file.Name(), maxSums)
	}
	sums := map[string]string{}
	for _, line := range sumLine.FindAllSubmatch(text, -1) {
		sums[string(line[2])] = string(line[1])
	}
	return text, sums, nil
}

// open opens a listed file. The caller closes it.
func (a Agents) open(name string) (*os.File, error) {
	file, err := os.Open(filepath.Join(a.Dir, name))
	if err != nil {
		return nil, err
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, file.Close(), fmt.Errorf("%s is no file", file.Name()))
	}
	return file, nil
}
