package udpsock

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// messagesAtOnce is the largest number of messages per system call.
	messagesAtOnce = 32
	// slot is the memory in bytes for each message of a batch. It is no power of
	// two: the beginnings of the slots, all that most datagrams fill, would compete
	// for the same cache lines.
	slot = maxDatagram + 320
)

// batchMemory is the kernel's view of a batch: messages, each with one datagram or,
// coalesced, several of one source and length.
type batchMemory struct {
	messages  [messagesAtOnce]message
	vectors   [messagesAtOnce]unix.Iovec
	endpoints [messagesAtOnce]Endpoint
	controls  [messagesAtOnce][controlSpace]byte
	data      []byte
}

func (m *batchMemory) init() {
	// Most of it is never touched, and takes no memory until it is.
	m.data = make([]byte, messagesAtOnce*slot)
	for i := range m.messages {
		m.vectors[i].Base = &m.data[i*slot]
		m.vectors[i].SetLen(maxDatagram)
		h := &m.messages[i].header
		h.Iov = &m.vectors[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&m.endpoints[i].name))
		h.Control = &m.controls[i][0]
	}
	m.reset(messagesAtOnce)
}

// reset offers the kernel the whole room for names and control messages again,
// which it cut to what it used of the first n messages at most.
func (m *batchMemory) reset(n int) {
	for i := range m.messages[:min(n, messagesAtOnce)] {
		h := &m.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlSpace)
	}
}

// split finds the datagrams of the first n messages.
func (b *Batch) split(n int) {
	m := &b.memory
	for i := range n {
		h, from := &m.messages[i].header, &m.endpoints[i]
		from.received(h.Namelen)
		data := m.data[i*slot:][:m.messages[i].length]
		size := len(data)
		for control := m.controls[i][:h.Controllen]; len(control) >= unix.SizeofCmsghdr; {
			c, content, rest, err := unix.ParseOneSocketControlMessage(control)
			if err != nil {
				break
			}
			control = rest
			if c.Level == unix.IPPROTO_UDP && c.Type == unix.UDP_GRO && len(content) >= 4 {
				size = int(binary.NativeEndian.Uint32(content))
			} else {
				from.reached(c.Level, c.Type, content)
			}
		}
		for len(data) > size && size > 0 {
			b.datagrams = append(b.datagrams, received{data[:size:size], from})
			data = data[size:]
		}
		b.datagrams = append(b.datagrams, received{data[:len(data):len(data)], from})
	}
}
