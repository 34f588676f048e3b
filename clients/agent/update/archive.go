package update

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	// maxUnpacked and maxEntries bound an archive, in bytes and in files: a small one may
	// unpack to anything.
	maxUnpacked = 128 << 20
	maxEntries  = 1000
)

// ProgramName is the name of the agent's program, in archives too.
func ProgramName() string {
	if runtime.GOOS == "windows" {
		return "eclitunnel.exe"
	}
	return "eclitunnel"
}

var errTooLarge = errors.New("it is too large for an archive of the agent")

// unpack writes the file called program in an archive to w, and fails where more than limit
// bytes would have to be unpacked. The ending of the archive's name says of which kind it is. Everything else in it is left alone, but a name that would lead
// out of a directory makes the whole archive suspect.
func unpack(name string, archive *io.SectionReader, program string, limit int64, w io.Writer) error {
	unpackAs := unpackTar
	if strings.HasSuffix(name, ".zip") {
		unpackAs = unpackZip
	}
	if err := unpackAs(archive, program, limit, w); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}

func unpackTar(archive *io.SectionReader, program string, limit int64, w io.Writer) error {
	compressed, err := gzip.NewReader(archive)
	if err != nil {
		return err
	}
	found := 0
	bounded := &io.LimitedReader{R: compressed, N: limit}
	files := tar.NewReader(bounded)
	for entries := 0; ; entries++ {
		header, err := files.Next()
		switch {
		case bounded.N <= 0 || entries > maxEntries:
			return errTooLarge
		case errors.Is(err, io.EOF):
			// The checksum of gzip comes at the very end.
			if _, err := io.Copy(io.Discard, bounded); err != nil {
				return err
			}
			return once(found, program)
		case err != nil:
			return err
		}
		if err := checkName(header.Name); err != nil {
			return err
		}
		if header.Name != program || header.Typeflag != tar.TypeReg {
			continue
		}
		if found++; found > 1 {
			return once(found, program)
		}
		if _, err := io.Copy(w, files); err != nil {
			return err
		}
	}
}

func unpackZip(archive *io.SectionReader, program string, limit int64, w io.Writer) error {
	files, err := zip.NewReader(archive, archive.Size())
	if err != nil {
		return err
	}
	if len(files.File) > maxEntries {
		return errTooLarge
	}
	var found []*zip.File
	for _, file := range files.File {
		if err := checkName(file.Name); err != nil {
			return err
		}
		if file.Name == program && file.Mode().IsRegular() {
			found = append(found, file)
		}
	}
	if err := once(len(found), program); err != nil {
		return err
	}
	content, err := found[0].Open()
	if err != nil {
		return err
	}
	defer content.Close()
	// To its end, where its checksum is compared.
	n, err := io.Copy(w, io.LimitReader(content, limit))
	if err == nil && n == limit {
		err = errTooLarge
	}
	return err
}

// once returns nil if the program was found once.
func once(found int, program string) error {
	switch found {
	case 0:
		return fmt.Errorf("there is no %s in it", program)
	case 1:
		return nil
	default:
		return fmt.Errorf("there is more than one %s in it", program)
	}
}

func checkName(name string) error {
	if !filepath.IsLocal(filepath.FromSlash(strings.TrimSuffix(name, "/"))) {
		return fmt.Errorf("it has the unsafe name %q", name)
	}
	return nil
}
