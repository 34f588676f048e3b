package update

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// runTimeout is how long a new program may take to print its version. A slow machine
	// reads it from a slow disk.
	runTimeout = time.Minute
	// busyWait and busyTries are for Linux, which runs no program that is open for writing:
	// a child that another goroutine starts at that moment has the file until it begins.
	busyWait  = 50 * time.Millisecond
	busyTries = 20
)

// Fetch downloads the release for the program at path, checks it, and runs it to see that
// it runs. It returns the path of the new program, in the same directory, for Install; the
// caller removes it if it does not install it. After an error nothing of it is left.
func (r Release) Fetch(ctx context.Context, source Source, path string) (fetched string, err error) {
	archive, err := os.CreateTemp(filepath.Dir(path), ".eclitunnel-*.download")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(archive.Name()) }()
	defer func() { _ = archive.Close() }() // It was only read after a good end.
	hash := sha256.New()
	if err := source(ctx, r.Archive, maxArchive, io.MultiWriter(archive, hash)); err != nil {
		return "", fmt.Errorf("download %s: %w", r.Archive, err)
	}
	if [32]byte(hash.Sum(nil)) != r.sum {
		return "", fmt.Errorf("%s: %w", r.Archive, ErrChecksum)
	}
	size, err := archive.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", err
	}
	fetched, err = r.write(io.NewSectionReader(archive, 0, size), path)
	if err == nil {
		err = r.try(ctx, fetched)
	}
	if err != nil && fetched != "" {
		_ = os.Remove(fetched)
		fetched = ""
	}
	return fetched, err
}

// write unpacks the program durably beside path, and gives it the access of that.
func (r Release) write(archive *io.SectionReader, path string) (string, error) {
	// Windows runs only what is named so.
	made, err := os.CreateTemp(filepath.Dir(path), ".eclitunnel-*"+filepath.Ext(ProgramName()))
	if err != nil {
		return "", err
	}
	err = unpack(r.Archive, archive, ProgramName(), maxUnpacked, made)
	if err == nil {
		err = sameAccess(made, path)
	}
	if err == nil {
		err = made.Sync()
	}
	if closeErr := made.Close(); err == nil {
		err = closeErr
	}
	return made.Name(), err
}

// try runs a program that was fetched, which must call itself what the archive's name says.
func (r Release) try(ctx context.Context, program string) error {
	said, err := VersionOf(ctx, program)
	if err != nil {
		return fmt.Errorf("the program in %s: %w", r.Archive, err)
	}
	if canonical(said) != canonical(r.Version) {
		return fmt.Errorf("the program in %s says that it is version %q", r.Archive, said)
	}
	return nil
}

// VersionOf runs the agent's program at path and returns the version that it prints.
func VersionOf(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	var printed []byte
	var err error
	for range busyTries {
		cmd := exec.CommandContext(ctx, path, "version", "--json")
		cmd.Env = withoutSettings(os.Environ())
		printed, err = cmd.Output()
		if !errors.Is(err, syscall.ETXTBSY) {
			break
		}
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
		}
	}
	if err != nil {
		return "", fmt.Errorf("it does not run on this machine: %w", err)
	}
	var said struct {
		Version string `json:"version"`
	}
	if err := json.Unmarshal(printed, &said); err != nil {
		return "", fmt.Errorf("it does not say its version: %w", err)
	}
	return said.Version, nil
}

// withoutSettings returns the environment without settings of the agent, which the new one
// may not know, and without secrets.
func withoutSettings(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "ECLITUNNEL_") {
			kept = append(kept, variable)
		}
	}
	return kept
}
