package main

// Model names: [host[:port]/]namespace/model:tag, parsed as the real one does (types/model/name.go).

import (
	"path/filepath"
	"strings"
)

const (
	defaultHost      = "registry.ollama.ai"
	defaultNamespace = "library"
	defaultTag       = "latest"
)

// Name is a model's full name; a scheme written before the host is not kept.
type Name struct{ Host, Namespace, Model, Tag string }

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// parseName fills what is missing from the defaults.
func parseName(s string) Name {
	n := Name{Host: defaultHost, Namespace: defaultNamespace, Tag: defaultTag}
	s, _, _ = strings.Cut(s, "@")
	if strings.LastIndex(s, ":") > strings.LastIndex(s, "/") {
		var tag string
		if s, tag, _ = cutLast(s, ":"); tag != "" {
			n.Tag = tag
		}
	}
	rest, model, ok := cutLast(s, "/")
	if !ok {
		n.Model = s
		return n
	}
	n.Model = model
	host, namespace, ok := cutLast(rest, "/")
	if !ok {
		n.Namespace = rest
		return n
	}
	n.Namespace = namespace
	if _, after, ok := strings.Cut(host, "://"); ok {
		host = after
	}
	if host != "" {
		n.Host = host
	}
	return n
}

func validPart(s string, limit int, extra string) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		word := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !word && (i == 0 || !strings.ContainsRune(extra, rune(c))) {
			return false
		}
	}
	return true
}

// Valid says whether the name may be stored: a namespace has no dot, only a host has a colon.
func (n Name) Valid() bool {
	return validPart(n.Host, 350, "-.:") && validPart(n.Namespace, 80, "-") &&
		validPart(n.Model, 80, "-.") && validPart(n.Tag, 80, "-.")
}

// Path is the manifest's place below manifests/.
func (n Name) Path() string { return filepath.Join(n.Host, n.Namespace, n.Model, n.Tag) }

// String is the name as /api/tags shows it: defaults left out, the tag always there.
func (n Name) String() string {
	s := n.Model + ":" + n.Tag
	host := !strings.EqualFold(n.Host, defaultHost)
	if host || !strings.EqualFold(n.Namespace, defaultNamespace) {
		s = n.Namespace + "/" + s
	}
	if host {
		s = n.Host + "/" + s
	}
	return s
}

// Is compares without regard to case.
func (n Name) Is(other Name) bool { return strings.EqualFold(n.Path(), other.Path()) }

// isCloud: such names would be forwarded to ollama.com.
func isCloud(s string) bool {
	_, tag, ok := cutLast(s, ":")
	return ok && (tag == "cloud" || strings.HasSuffix(tag, "-cloud")) && !strings.Contains(tag, "/")
}
