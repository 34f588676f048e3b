// Command release writes a release into a directory: archives and packages of the agent
// and the panel for each platform, their checksums, the signature of these, and a bill of
// materials of each program. Two runs on one commit write the same bytes, whatever the
// directory, the machine and the time. `make release` calls it; docs/install.md explains
// what it writes.
package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// release is what is made, and of what.
type release struct {
	version, commit string
	// time is that of the commit. Every file in an archive has it.
	time time.Time
	// out is where the release goes, and work, beside it, what it is made of.
	out, work string
	// key signs the checksums; nil leaves them unsigned.
	key ed25519.PrivateKey
	// public is the public half in base64, as the agent holds it; empty if it is to hold none.
	public string
	// unpackaged leaves out .deb and .rpm.
	unpackaged bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	var r release
	flag.StringVar(&r.version, "version", "", "version, without a v")
	flag.StringVar(&r.commit, "commit", "unknown", "commit that the programs name")
	flag.StringVar(&r.out, "out", "dist", "directory that the release replaces")
	flag.BoolVar(&r.unpackaged, "no-packages", false, "leave out .deb and .rpm")
	agents := flag.String("agents", "", "platforms of the agent, such as linux/arm/7, with spaces between them")
	panels := flag.String("panels", "", "platforms of the panel")
	only := flag.String("platforms", "", "leave out all platforms but these")
	key := flag.String("key", "", "PEM file of the Ed25519 private key that signs the checksums")
	public := flag.String("public-key", "", "PEM file of its public half, to make what was signed elsewhere, in place of -key")
	flag.Parse()
	if r.version == "" || flag.NArg() > 0 {
		return errors.New("usage: release -version VERSION -agents PLATFORMS -panels PLATFORMS")
	}
	agentPlatforms, panelPlatforms, err := choose(*agents, *panels, *only)
	if err != nil {
		return err
	}
	if err := r.readKeys(*key, *public); err != nil {
		return err
	}
	if r.time, err = sourceTime(ctx); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	// Beside the result, so that it can be renamed: a failed run leaves the last release.
	if r.work, err = os.MkdirTemp(filepath.Dir(r.out), ".release-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.work)) }()
	return r.make(ctx, agentPlatforms, panelPlatforms)
}

// make makes the release and puts it in place of the last one.
func (r *release) make(ctx context.Context, agents, panels []platform) error {
	made, handedOut := filepath.Join(r.work, "dist"), filepath.Join(r.work, "agents")
	for _, dir := range []string{made, handedOut} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	archives, err := r.programs(ctx, agent, agents, made)
	if err != nil {
		return err
	}
	// What a panel hands out are the archives, with checksums of these alone.
	for _, file := range archives {
		if err := os.Link(file, filepath.Join(handedOut, filepath.Base(file))); err != nil {
			return err
		}
	}
	if err := r.sum(handedOut); err != nil {
		return err
	}
	if _, err := r.programs(ctx, panel, panels, made); err != nil {
		return err
	}
	if err := r.sum(made); err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.Rename(made, r.out); err != nil {
		return err
	}
	signed := "signed"
	if r.key == nil {
		signed = "not signed, since RELEASE_KEY names no key"
	}
	fmt.Printf("%s: version %s, %s\n", r.out, r.version, signed)
	return nil
}

// programs builds a program for platforms and packs it. It returns the archives.
func (r *release) programs(ctx context.Context, p program, platforms []platform, made string) ([]string, error) {
	var built, archives []string
	for _, target := range platforms {
		binary := filepath.Join(r.work, p.name+"_"+target.String(), p.file(target))
		if err := r.build(ctx, p, target, binary); err != nil {
			return nil, err
		}
		archive, err := r.archive(p, target, binary, made)
		if err != nil {
			return nil, err
		}
		if !r.unpackaged {
			if err := r.packages(ctx, p, target, binary, made); err != nil {
				return nil, err
			}
		}
		built, archives = append(built, binary), append(archives, archive)
	}
	if len(built) == 0 {
		return nil, nil
	}
	return archives, r.bill(p, built, made)
}

// build builds a program. The flags are those of the Makefile: nothing of the machine gets
// into the program.
func (r *release) build(ctx context.Context, p program, target platform, binary string) error {
	fmt.Printf("build %s for %s\n", p.name, target)
	stamp := "-s -w -X main.version=" + r.version + " -X main.commit=" + r.commit
	if r.public != "" && p.updates {
		stamp += " -X main.releaseKey=" + r.public
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", stamp, "-o", binary, p.source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+target.os, "GOARCH="+target.arch, "GOARM="+target.arm)
	// Levels of processors that the builder may have set would change the program.
	cmd.Env = append(cmd.Env, "GOAMD64=v1", "GO386=sse2", "GOARM64=v8.0", "GORISCV64=rva20u64", "GOEXPERIMENT=")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s for %s: %w", p.name, target, err)
	}
	return nil
}

// sourceTime returns the time of SOURCE_DATE_EPOCH, in seconds since 1970, or else that of
// the commit (https://reproducible-builds.org/specs/source-date-epoch/).
func sourceTime(ctx context.Context) (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		out, err := exec.CommandContext(ctx, "git", "log", "-1", "--format=%ct").Output()
		if err != nil {
			return time.Time{}, fmt.Errorf("read the time of the commit, which SOURCE_DATE_EPOCH can give instead: %w", err)
		}
		text = strings.TrimSpace(string(out))
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
