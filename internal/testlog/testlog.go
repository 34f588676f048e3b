// Package testlog is a log that a test reads while what it tests writes it.
package testlog

import (
	"bytes"
	"strings"
	"sync"
)

// Buffer keeps what is written. It is safe for concurrent use. The zero value is empty.
type Buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements [io.Writer]; its error is nil.
func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns everything that has been written.
func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Count returns how often words have been written.
func (b *Buffer) Count(words string) int { return strings.Count(b.String(), words) }
