package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

const (
	// backlogRetry is the wait before the file is written again after an error.
	backlogRetry = 10 * time.Second
	// backlogGrowth is by how many bytes the file may have grown to more than twice what is
	// needed, before it is written anew.
	backlogGrowth = 1 << 20
	// maxBacklog is the size of the largest file, in bytes: what package files reads.
	maxBacklog = 64 << 20
)

// UsageBacklog holds the reports of usage that no panel has stored: at the end of a Server for
// the next one of this process, and while it runs in a file, for a next process after a kill.
// It serves one Server at a time.
//
// The file has a line of JSON for each report. A line replaces an earlier one of the same
// epoch and sequence, so that what was counted is appended; the file is written anew once more
// than half of it is out of date. It is removed when all reports are stored.
type UsageBacklog struct {
	path string // "": no file.
	log  *slog.Logger

	ran  bool // A Server has left its reports here.
	left []keptReport

	exists   bool  // There is a file.
	complete bool  // It has everything that it was given: the next reports may be appended.
	size     int64 // As it was written anew, in bytes,
	appended int64 // and what was appended since.
	failing  bool  // The last write failed,
	retry    time.Time
}

// NewUsageBacklog returns the backlog that is kept in a file; "": only in memory. What cannot
// be read or written is logged; a nil logger discards.
func NewUsageBacklog(path string, logger *slog.Logger) *UsageBacklog {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &UsageBacklog{path: path, log: logger}
}

// load returns the reports that an earlier Server has left, in the order in which they are to
// be sent.
func (b *UsageBacklog) load() []keptReport {
	if b.ran || b.path == "" {
		return b.left
	}
	data, err := files.ReadData(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		b.log.Warn("usage that was not reported cannot be read", slog.String("file", b.path), slog.Any("error", err))
		return nil
	}
	reports, damaged := parseBacklog(data)
	b.exists, b.size = true, int64(len(data))
	b.complete = damaged == 0 && bytes.HasSuffix(data, []byte{'\n'})
	if damaged > 0 {
		b.log.Warn("a part of the usage that was not reported cannot be read", slog.String("file", b.path),
			slog.Int("lines", damaged), slog.Int("reports", len(reports)))
	}
	return reports
}

// parseBacklog returns the last report of each epoch and sequence, in the order of the first,
// and how many lines cannot be read, such as the last one where a process was killed as it
// wrote. A panel would refuse them again and again, with the channel.
func parseBacklog(data []byte) (reports []keptReport, damaged int) {
	type number struct {
		epoch    uuid.UUID
		sequence int64
	}
	at := map[number]int{}
	for line := range bytes.Lines(data) {
		var k keptReport
		if err := json.Unmarshal(line, &k); err != nil || !k.valid() {
			damaged++
			continue
		}
		n := number{k.Report.Epoch, k.Report.Sequence}
		if i, ok := at[n]; ok {
			reports[i] = k
			continue
		}
		at[n] = len(reports)
		reports = append(reports, k)
	}
	return reports, damaged
}

// due reports whether the file may be written, as it may not for a while after an error.
func (b *UsageBacklog) due(now time.Time) bool { return b.path != "" && !now.Before(b.retry) }

// append adds reports to the file, or replaces those that it has.
func (b *UsageBacklog) append(reports []keptReport, now time.Time) {
	data, err := encodeBacklog(reports)
	if err == nil {
		err = b.appendData(data)
	}
	b.note(err, now)
	b.appended += int64(len(data))
	// Part of it may have been written.
	b.complete = err == nil && b.appended <= b.size+backlogGrowth
}

func (b *UsageBacklog) appendData(data []byte) (err error) {
	if b.size+b.appended+int64(len(data)) > maxBacklog {
		return fmt.Errorf("%s would be larger than %d MiB", b.path, maxBacklog>>20)
	}
	f, err := os.OpenFile(b.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// replace writes the file anew. After an error it is as it was.
func (b *UsageBacklog) replace(reports []keptReport, now time.Time) error {
	data, err := encodeBacklog(reports)
	if err == nil && len(data) > maxBacklog {
		err = fmt.Errorf("%s would be larger than %d MiB", b.path, maxBacklog>>20)
	}
	if err == nil {
		err = files.Write(b.path, data)
	}
	if err == nil {
		b.exists, b.complete, b.size, b.appended = true, true, int64(len(data)), 0
	}
	b.note(err, now)
	return err
}

// discard removes a file that could not be replaced and must not be used.
func (b *UsageBacklog) discard() {
	_ = files.Remove(b.path) // The error of the replacement was logged.
	b.complete = false
}

// clear removes the file.
func (b *UsageBacklog) clear(now time.Time) {
	if !b.exists {
		return
	}
	err := files.Remove(b.path)
	if err != nil && files.Write(b.path, nil) == nil {
		err = nil // It is mounted by itself.
	}
	if err == nil {
		b.exists, b.complete = false, false
	}
	b.note(err, now)
}

// leave keeps the reports that a Server has not sent at its end.
func (b *UsageBacklog) leave(reports []keptReport, now time.Time) {
	b.ran, b.left = true, reports
	switch {
	case b.path == "":
	case len(reports) == 0:
		b.clear(now)
	default:
		_ = b.replace(reports, now) // Logged.
	}
}

// note logs the first of a series of errors, and its end.
func (b *UsageBacklog) note(err error, now time.Time) {
	switch {
	case err != nil && !b.failing:
		b.log.Warn("usage that is not reported yet cannot be kept: it is lost if this process is killed",
			slog.String("file", b.path), slog.Any("error", err))
	case err == nil && b.failing:
		b.log.Info("usage that is not reported yet is kept again", slog.String("file", b.path))
	}
	b.failing, b.retry = err != nil, time.Time{}
	if err != nil {
		b.retry = now.Add(backlogRetry)
	}
}

func encodeBacklog(reports []keptReport) ([]byte, error) {
	var data []byte
	for _, report := range reports {
		encoded, err := json.Marshal(report)
		if err != nil {
			return nil, err
		}
		data = append(append(data, encoded...), '\n')
	}
	return data, nil
}
