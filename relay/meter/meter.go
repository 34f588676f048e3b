// Package meter counts what players and allocations carry.
//
// A [Meter] counts one connection of a player, TCP or a UDP flow, while it lasts, and adds
// to the [Allocation] that it is of. Counting costs atomic additions and never waits, so
// that it may happen for each chunk of a stream and each datagram.
//
// Download is from the game to players, and upload from players to the game. Bytes are
// those of payloads, without any header. What is counted as download was handed to the
// system for the player; what is counted as upload was received from the player and
// passed on to the tunnel client.
package meter

import (
	"sync"
	"sync/atomic"
)

// Traffic is what has been carried.
type Traffic struct {
	DownloadBytes, UploadBytes         uint64
	DownloadDatagrams, UploadDatagrams uint64 // Of UDP.
}

// Sub returns what has been carried since before.
func (t Traffic) Sub(before Traffic) Traffic {
	return Traffic{
		DownloadBytes: t.DownloadBytes - before.DownloadBytes, UploadBytes: t.UploadBytes - before.UploadBytes,
		DownloadDatagrams: t.DownloadDatagrams - before.DownloadDatagrams, UploadDatagrams: t.UploadDatagrams - before.UploadDatagrams,
	}
}

// direction counts one direction.
type direction struct{ bytes, datagrams atomic.Uint64 }

// Meter counts one connection of a player. A nil *Meter counts nothing. Its methods may
// be called from any goroutine.
type Meter struct {
	of               *Allocation
	download, upload direction

	mu           sync.Mutex
	joined, left bool
}

// Traffic returns what the connection has carried so far.
func (m *Meter) Traffic() Traffic {
	if m == nil {
		return Traffic{}
	}
	return Traffic{
		DownloadBytes: m.download.bytes.Load(), UploadBytes: m.upload.bytes.Load(),
		DownloadDatagrams: m.download.datagrams.Load(), UploadDatagrams: m.upload.datagrams.Load(),
	}
}

// Download counts bytes of a stream that were written to the player.
func (m *Meter) Download(bytes int) {
	if m != nil {
		m.download.bytes.Add(uint64(bytes))
		m.of.download.bytes.Add(uint64(bytes))
	}
}

// Upload counts bytes of a stream that were read from the player.
func (m *Meter) Upload(bytes int) {
	if m != nil {
		m.upload.bytes.Add(uint64(bytes))
		m.of.upload.bytes.Add(uint64(bytes))
	}
}

// DownloadDatagram counts a datagram that was sent to the player.
func (m *Meter) DownloadDatagram(bytes int) {
	if m != nil {
		m.Download(bytes)
		m.download.datagrams.Add(1)
		m.of.download.datagrams.Add(1)
	}
}

// UploadDatagram counts a datagram that was received from the player.
func (m *Meter) UploadDatagram(bytes int) {
	if m != nil {
		m.Upload(bytes)
		m.upload.datagrams.Add(1)
		m.of.upload.datagrams.Add(1)
	}
}

// Join notes, once, that the connection is one of a player who plays: see
// [Allocation.Players].
func (m *Meter) Join() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.joined && !m.left {
		m.joined = true
		m.of.join()
	}
}

// Joined reports whether Join has noted a player.
func (m *Meter) Joined() bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

// Leave notes, once, that the connection has ended.
func (m *Meter) Leave() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left {
		return
	}
	m.left = true
	m.of.leave(m.joined)
}

// Allocation counts what one allocation carries. The zero value is ready to use. Its
// methods may be called from any goroutine.
type Allocation struct {
	download direction
	_        [48]byte // Two goroutines add at a time: not to one cache line.
	upload   direction
	_        [48]byte

	mu       sync.Mutex
	open     int    // Connections.
	opened   uint64 // Ever.
	players  int
	peak     int // Of players, since Take.
	joins    uint64
	reported Traffic // By Take.
}

// New returns a meter for one more connection. The caller calls its Leave.
func (a *Allocation) New() *Meter {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open++
	a.opened++
	return &Meter{of: a}
}

// Arrived grows with each connection, and with each datagram that is passed on.
func (a *Allocation) Arrived() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened + a.upload.datagrams.Load()
}

// Players is the number of players now: connections of TCP that were passed to the tunnel
// client, and flows of UDP that are proven.
func (a *Allocation) Players() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.players
}

// Traffic returns what the allocation has carried so far.
func (a *Allocation) Traffic() Traffic {
	return Traffic{
		DownloadBytes: a.download.bytes.Load(), UploadBytes: a.upload.bytes.Load(),
		DownloadDatagrams: a.download.datagrams.Load(), UploadDatagrams: a.upload.datagrams.Load(),
	}
}

// Usage is what an allocation has carried in a time.
type Usage struct {
	Traffic
	Joins       uint64 // Players who have joined.
	PeakPlayers int    // The most players at any moment.
	Players     int    // The players at the end.
}

// Take returns the usage since the last Take.
func (a *Allocation) Take() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.Traffic()
	usage := Usage{Traffic: now.Sub(a.reported), Joins: a.joins, PeakPlayers: a.peak, Players: a.players}
	a.reported, a.joins, a.peak = now, 0, a.players
	return usage
}

// Open reports whether there are connections.
func (a *Allocation) Open() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.open > 0
}

func (a *Allocation) join() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.players++
	a.joins++
	a.peak = max(a.peak, a.players)
}

func (a *Allocation) leave(joined bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.open--
	if joined {
		a.players--
	}
}
