package session

import (
	"container/list"
	"iter"
)

// turns holds a value for each of some keys, and takes turns among them. The zero value
// is empty.
type turns[K comparable, V any] struct {
	elements map[K]*list.Element
	order    list.List // Of turn, the next one first.
}

type turn[K comparable, V any] struct {
	key   K
	value V
}

// of returns the value of a key. If there is none it is made, and its turn comes last.
func (t *turns[K, V]) of(key K, make func() V) V {
	if v, ok := t.get(key); ok {
		return v
	}
	if t.elements == nil {
		t.elements = map[K]*list.Element{}
	}
	v := make()
	t.elements[key] = t.order.PushBack(turn[K, V]{key, v})
	return v
}

func (t *turns[K, V]) get(key K) (v V, ok bool) {
	e, ok := t.elements[key]
	if !ok {
		return v, false
	}
	return e.Value.(turn[K, V]).value, true
}

// next returns the value whose turn it is, and puts it last.
func (t *turns[K, V]) next() (v V, ok bool) {
	e := t.order.Front()
	if e == nil {
		return v, false
	}
	t.order.MoveToBack(e)
	return e.Value.(turn[K, V]).value, true
}

func (t *turns[K, V]) drop(key K) {
	t.order.Remove(t.elements[key])
	delete(t.elements, key)
}

// all returns the values, which must not change while it is used.
func (t *turns[K, V]) all() iter.Seq[V] {
	return func(yield func(V) bool) {
		for e := t.order.Front(); e != nil; e = e.Next() {
			if !yield(e.Value.(turn[K, V]).value) {
				return
			}
		}
	}
}
