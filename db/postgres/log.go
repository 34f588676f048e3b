//go:build unix

package postgres

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxLogSize is the size in bytes above which a start renames the log to postgres.log.old.
	maxLogSize = 10 << 20
	tailLines  = 15
	tailBytes  = 8 << 10
)

// serverLog is the log file of Postgres, and the offset at which the current run starts.
type serverLog struct {
	file  *os.File
	start int64
}

func (d *dataDir) openServerLog() (*serverLog, error) {
	path := filepath.Join(d.root, logName)
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogSize {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	file, err := d.openOwn(logName, os.O_APPEND)
	if err != nil {
		return nil, err
	}
	start, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &serverLog{file: file, start: start}, nil
}

// tail returns the last lines of the current run, for an error message.
func (l *serverLog) tail() string {
	// Opened by name, because Stop may have closed l.file.
	file, err := os.Open(l.file.Name())
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	content, err := io.ReadAll(io.NewSectionReader(file, max(l.start, info.Size()-tailBytes), tailBytes))
	if err != nil {
		return err.Error()
	}
	return lastLines(content)
}

func lastLines(content []byte) string {
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
