package fakeblob

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// change answers requests that write, as far as a test that fills a container needs them.
func (s *Server) change(w http.ResponseWriter, r *http.Request, req Request, q url.Values) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		fail(w, r, http.StatusBadRequest, "InvalidInput", "the body could not be read")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.containers[req.Container]
	switch {
	case r.Method == http.MethodPut && q.Get("restype") == "container":
		if c != nil {
			fail(w, r, http.StatusConflict, "ContainerAlreadyExists", "The specified container already exists.")
			return
		}
		s.create(req.Container)
	case c == nil:
		fail(w, r, http.StatusNotFound, "ContainerNotFound", "The specified container does not exist.")
		return
	case r.Method == http.MethodDelete && q.Get("restype") == "container":
		delete(s.containers, req.Container)
		w.WriteHeader(http.StatusAccepted)
		return
	case req.Op == Lease && c.blobs[req.Blob] == nil:
		fail(w, r, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
		return
	case req.Op == Lease:
		s.changeLease(w, r, c.blobs[req.Blob])
		return
	case r.Method == http.MethodDelete:
		b := c.blobs[req.Blob]
		if b == nil {
			fail(w, r, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
			return
		}
		if b.unmet(w, r) || b.blocked(w, r) {
			return
		}
		delete(c.blobs, req.Blob)
		c.names = nil
		w.WriteHeader(http.StatusAccepted)
		return
	case r.Method == http.MethodPut && q.Get("comp") == "appendblock":
		b := c.blobs[req.Blob]
		if b == nil {
			fail(w, r, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
			return
		}
		w.Header().Set("x-ms-blob-append-offset", strconv.Itoa(len(b.data)))
		b.data = append(b.data, body...)
		b.etag, b.modified = s.nextETag(), s.now()
		w.Header().Set("ETag", `"`+b.etag+`"`)
		w.Header().Set("Last-Modified", b.modified.Format(http.TimeFormat))
	case r.Method == http.MethodPut && q.Get("comp") == "tier":
		b := c.blobs[req.Blob]
		if b == nil {
			fail(w, r, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.")
			return
		}
		b.archived = r.Header.Get("x-ms-access-tier") == "Archive"
		w.WriteHeader(http.StatusOK)
		return
	case r.Method == http.MethodPut && q.Get("comp") == "":
		old := c.blobs[req.Blob]
		if old.unmet(w, r) || old.blocked(w, r) {
			return
		}
		b := s.put(req.Container, req.Blob, body, r.Header.Get("x-ms-blob-type") == "AppendBlob")
		if old != nil {
			b.lease = old.lease
		}
		for key, values := range r.Header {
			if name, ok := strings.CutPrefix(strings.ToLower(key), "x-ms-meta-"); ok {
				if b.metadata == nil {
					b.metadata = make(map[string]string)
				}
				b.metadata[name] = values[0]
			}
		}
		w.Header().Set("ETag", `"`+b.etag+`"`)
		w.Header().Set("Last-Modified", b.modified.Format(http.TimeFormat))
	default:
		fail(w, r, http.StatusNotImplemented, "NotImplemented", "this fake does not do that")
		return
	}
	w.WriteHeader(http.StatusCreated)
}
