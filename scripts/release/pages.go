package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
)

// pages returns the manual pages and the completions of a program as contents of a package. The program itself writes
// them, on this machine, so that they are those of the release. binary is the program for target.
func (r *release) pages(ctx context.Context, p program, target platform, binary string) ([]content, error) {
	dir := filepath.Join(r.work, p.name+"_pages")
	if _, err := os.Stat(dir); err != nil { // Otherwise another platform has made them.
		if err := r.writePages(ctx, p, target, binary, dir); err != nil {
			return nil, err
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "man", "*.1.gz"))
	if err != nil {
		return nil, err
	}
	var contents []content
	for _, page := range pages {
		contents = append(contents, file(page, "/usr/share/man/man1/"+filepath.Base(page), 0o644))
	}
	for _, c := range []struct{ shell, to, packager string }{
		{"bash", "/usr/share/bash-completion/completions/" + p.name, ""},
		{"fish", "/usr/share/fish/vendor_completions.d/" + p.name + ".fish", ""},
		{"zsh", "/usr/share/zsh/vendor-completions/_" + p.name, "deb"},
		{"zsh", "/usr/share/zsh/site-functions/_" + p.name, "rpm"},
	} {
		one := file(filepath.Join(dir, c.shell), c.to, 0o644)
		one.Packager = c.packager
		contents = append(contents, one)
	}
	return contents, nil
}

// writePages writes the pages into the directory man in dir, and the completions into dir.
func (r *release) writePages(ctx context.Context, p program, target platform, binary, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if here := (platform{os: runtime.GOOS, arch: runtime.GOARCH}); target != here {
		binary = filepath.Join(dir, "program")
		out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-X main.version="+r.version, "-o", binary, p.source).CombinedOutput()
		if err != nil {
			return fmt.Errorf("build %s for its manual: %w: %s", p.name, err, bytes.TrimSpace(out))
		}
	}
	man := filepath.Join(dir, "man")
	cmd := exec.CommandContext(ctx, binary, "man", man)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.time.Unix(), 10))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("write the manual of %s: %w: %s", p.name, err, bytes.TrimSpace(out))
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		if err := compress(page); err != nil {
			return err
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := exec.CommandContext(ctx, binary, "completion", shell).Output()
		if err != nil {
			return fmt.Errorf("write the completion of %s for %s: %w", p.name, shell, err)
		}
		if err := os.WriteFile(filepath.Join(dir, shell), script, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compress writes a file's gzip beside it, without a name and a time in it.
func compress(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.WriteFile(file+".gz", packed.Bytes(), 0o644)
}
