package udptunnel

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// incomingBatches holds memory that batches are read into.
var incomingBatches = sync.Pool{New: func() any { return new([wire.MaxBatch]byte) }}

func (d *DataConn) read(ws *websocket.Conn, handle func([]wire.Record) error) error {
	for {
		kind, r, err := ws.NextReader()
		if err != nil {
			return err
		}
		if kind != websocket.BinaryMessage {
			return fmt.Errorf("%w: text on a datagram data connection", wire.ErrMalformed)
		}
		if err := d.readBatch(r, handle); err != nil {
			return err
		}
	}
}

func (d *DataConn) readBatch(r io.Reader, handle func([]wire.Record) error) error {
	b := incomingBatches.Get().(*[wire.MaxBatch]byte)
	defer incomingBatches.Put(b)
	batch, err := readMessage(r, b[:])
	if err != nil {
		return err
	}
	return d.receive(batch, handle)
}

// recordsAtOnce is how many records handle is given at once: a message of tiny
// ones holds tens of thousands.
const recordsAtOnce = 64

// decoded holds the records that handle is given.
var decoded = sync.Pool{New: func() any { return new([recordsAtOnce]wire.Record) }}

// receive handles the records of a batch.
func (d *DataConn) receive(batch []byte, handle func([]wire.Record) error) error {
	if len(batch) == 0 {
		return fmt.Errorf("%w: empty batch", wire.ErrMalformed)
	}
	records := decoded.Get().(*[recordsAtOnce]wire.Record)
	defer decoded.Put(records)
	for len(batch) > 0 {
		n, datagrams, payload := 0, 0, 0
		var err error
		for ; n < len(records) && len(batch) > 0; n++ {
			if records[n], batch, err = wire.NextRecord(batch); err != nil {
				break
			}
			if records[n].Kind == wire.RecordDatagram {
				datagrams++
				payload += len(records[n].Payload)
			}
		}
		d.counters.Received.Add(uint64(datagrams))
		d.counters.ReceivedBytes.Add(uint64(payload))
		// The records before a malformed one are handled as if they had come alone.
		if n > 0 {
			if err := handle(records[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readMessage reads a whole WebSocket message into b; one that does not fit is
// malformed.
func readMessage(r io.Reader, b []byte) ([]byte, error) {
	n := 0
	for {
		if n == len(b) {
			if m, _ := r.Read(make([]byte, 1)); m > 0 {
				return nil, fmt.Errorf("%w: message over %d bytes", wire.ErrMalformed, len(b))
			}
			return b, nil
		}
		m, err := r.Read(b[n:])
		n += m
		if errors.Is(err, io.EOF) {
			return b[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}
