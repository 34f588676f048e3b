package main

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// entry is a file of an archive or a package.
type entry struct {
	name string // In the archive, with slashes.
	from string // On this machine.
	mode int64
}

// archive packs a program for a platform into made, and returns the archive's path.
func (r *release) archive(p program, target platform, binary, made string) (string, error) {
	entries := []entry{{p.file(target), binary, 0o755}, {"LICENSE", "LICENSE", 0o644}}
	if target.os == "linux" {
		for _, name := range []string{p.unit + ".service", "eclitunnel.sysusers"} {
			entries = append(entries, entry{"systemd/" + name, filepath.Join("deploy", "systemd", name), 0o644})
		}
	}
	if p.name == panel.name {
		entries = append(entries, r.handedOut("agents")...)
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	pack, ending := writeTar, ".tar.gz"
	if target.os == "windows" {
		pack, ending = writeZip, ".zip"
	}
	name := filepath.Join(made, p.name+"_"+r.version+"_"+target.String()+ending)
	file, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	return name, errors.Join(pack(file, entries, r.time), file.Close())
}

// handedOut returns what the panel hands out, as it lies in a directory of its archive.
func (r *release) handedOut(dir string) []entry {
	// The pattern is valid, and there is no other error.
	files, _ := filepath.Glob(filepath.Join(r.work, "agents", "*"))
	entries := make([]entry, len(files))
	for i, file := range files {
		entries[i] = entry{path.Join(dir, filepath.Base(file)), file, 0o644}
	}
	return entries
}

// writeTar writes a tar.gz in which nothing is of the machine that writes it.
func writeTar(w io.Writer, entries []entry, modified time.Time) error {
	compressed, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(compressed)
	for _, e := range entries {
		err := copyFile(e.from, func(size int64) (io.Writer, error) {
			return archive, archive.WriteHeader(&tar.Header{
				Typeflag: tar.TypeReg, Name: e.name, Mode: e.mode, Size: size, ModTime: modified, Format: tar.FormatUSTAR,
			})
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), compressed.Close())
}

// writeZip is writeTar as a zip.
func writeZip(w io.Writer, entries []entry, modified time.Time) error {
	archive := zip.NewWriter(w)
	for _, e := range entries {
		err := copyFile(e.from, func(int64) (io.Writer, error) {
			header := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: modified}
			header.SetMode(os.FileMode(e.mode))
			return archive.CreateHeader(header)
		})
		if err != nil {
			return err
		}
	}
	return archive.Close()
}

// copyFile copies a file to what begin returns for its size.
func copyFile(from string, begin func(size int64) (io.Writer, error)) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	w, err := begin(info.Size())
	if err != nil {
		return err
	}
	_, err = io.Copy(w, file)
	return err
}
