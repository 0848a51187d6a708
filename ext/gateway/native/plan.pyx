"""Rules, weights and sticky keys: from a request to the version that answers it."""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from gateway.native.cursor cimport (
    WIRE_BYTES, WIRE_VARINT, Cursor, Span, cursor_over, read_bytes, read_tag, read_varint, skip_field, span_equals)
from gateway.native.dice cimport roll
from gateway.native.noted cimport find_noted
from gateway.native.route cimport SHARE_UNIT, Asked, Tally, Target
from gateway.native.sticky cimport score_of, sip_hash


cdef const char* TRUE = "true"
cdef const char* FALSE = "false"


cdef inline Span span_of(bytes text):
    cdef Span span
    span.ptr, span.len = text, len(text)
    return span


cdef inline int compare(Span a, Span b) noexcept nogil:
    """An order that is quick to tell: by length, then by bytes."""
    if a.len != b.len:
        return -1 if a.len < b.len else 1
    return memcmp(a.ptr, b.ptr, a.len) if a.len else 0


def key_of(bytes salt not None, bytes key not None):
    """The sticky key's hash, from which every arm draws its number."""
    return sip_hash(sip_hash(0, 0, span_of(salt)), sip_hash(0, 1, span_of(salt)), span_of(key))


@cython.final
cdef class Plan:
    """Plan(tally, generation, split, rules=[], sticky=None, salt=b"").

    split: [(Target, share of 10,000)], which add up to 10,000; rules: [(is_parameter, name, is_prefix, values, split)]; sticky:
    (is_parameter, name). Names and values are bytes, names of headers in lower case.
    """

    def __cinit__(self, Tally tally not None, int64_t generation, list split not None, list rules=None, tuple sticky=None,
                  bytes salt not None=b""):
        rules = rules or []
        self.tally, self.generation = tally, generation
        self.keep = []
        self.sticky = -1
        self.k0, self.k1 = sip_hash(0, 0, span_of(salt)), sip_hash(0, 1, span_of(salt))
        self.rules = <Rule*>calloc(max(len(rules), 1), sizeof(Rule))
        if self.rules == NULL:
            raise MemoryError("no memory for a route")
        self._fill(&self.split, split)
        for is_parameter, name, is_prefix, values, rule_split in rules:
            self._add_rule(is_parameter, name, is_prefix, values, rule_split)
        if sticky is not None:
            self.sticky = self._field(sticky[0], sticky[1])

    def __dealloc__(self):
        cdef int i
        free(self.split.choices)
        for i in range(self.n_rules):
            free(self.rules[i].values)
            free(self.rules[i].split.choices)
        free(self.rules)

    # --- building --------------------------------------------------------------------------------------------------------------

    cdef int _field(self, bint is_parameter, bytes name) except -1:
        cdef Span span = span_of(name)
        cdef int i
        for i in range(self.n_fields):
            if self.fields[i].is_parameter == is_parameter and span_equals(self.fields[i].name, span):
                return i
        if self.n_fields == MAX_FIELDS:
            raise ValueError(f"a route looks at more than {MAX_FIELDS} headers and parameters")
        self.keep.append(name)
        self.fields[self.n_fields].name, self.fields[self.n_fields].is_parameter = span, is_parameter
        if not is_parameter:
            self.wants_headers = True
        self.n_fields += 1
        return self.n_fields - 1

    cdef int _add_rule(self, bint is_parameter, bytes name, bint is_prefix, list values, list split) except -1:
        cdef Rule* rule = &self.rules[self.n_rules]
        cdef int i
        values = sorted(values, key=lambda value: (len(value), value))
        self.n_rules += 1
        rule.field, rule.is_prefix = self._field(is_parameter, name), is_prefix
        rule.values = <Span*>calloc(max(len(values), 1), sizeof(Span))
        if rule.values == NULL:
            raise MemoryError("no memory for a route")
        self.keep.append(values)
        for i in range(len(values)):
            rule.values[i] = span_of(values[i])
        rule.n_values = len(values)
        return self._fill(&rule.split, split)

    cdef int _fill(self, Split* split, list choices) except -1:
        cdef Target target
        cdef int share, upto = 0, i
        cdef bytes seed
        cdef dict occurrences = {}
        if not choices:
            raise ValueError("a split has no version")
        split.choices = <Choice*>calloc(len(choices), sizeof(Choice))
        if split.choices == NULL:
            raise MemoryError("no memory for a route")
        split.n_choices = len(choices)
        for i in range(split.n_choices):
            target, share = choices[i]
            if share < 0:
                raise ValueError(f"share: got {share}, expected 0 to {SHARE_UNIT}")
            upto += share
            occurrence = occurrences[target.version] = occurrences.get(target.version, -1) + 1      # two arms may have one version
            seed = b"%b\0%d" % (target.version.encode(), occurrence)
            split.choices[i].seed = sip_hash(self.k0, self.k1, span_of(seed))
            split.choices[i].upto, split.choices[i].weight = upto, share
            split.choices[i].target = <void*>target
            self.keep.append(target)
            if target.route is not None and target.route.shadows is not None:
                self.has_shadows = True
        if upto != SHARE_UNIT:
            raise ValueError(f"the shares of a split add up to {upto}, expected {SHARE_UNIT}")
        return 0

    # --- choosing --------------------------------------------------------------------------------------------------------------

    cdef Target choose(self, Asked* asked):
        cdef Value values[MAX_FIELDS]
        cdef Split* split = &self.split
        cdef Value* value
        cdef int i
        asked.has_key = False
        for i in range(self.n_fields):
            values[i].is_known = False
        for i in range(self.n_rules):
            value = self._value(self.rules[i].field, values, asked)
            if value.is_there and matches(&self.rules[i], value.span):
                split = &self.rules[i].split
                break
        if self.sticky >= 0 and (split.n_choices > 1 or self.has_shadows):
            value = self._value(self.sticky, values, asked)
            if value.is_there and value.span.len:             # an empty key would send all who have none the same way
                asked.key = sip_hash(self.k0, self.k1, value.span)
                asked.has_key = True
            else:
                self.tally.unkeyed += 1
        return self._drawn(split, asked)

    cdef Target _drawn(self, Split* split, const Asked* asked):
        cdef Choice* choice = split.choices
        cdef Choice* best = NULL
        cdef double score, least = 0
        cdef uint64_t at
        cdef int i
        if split.n_choices == 1:
            return <Target>choice.target
        if asked.has_key:
            for i in range(split.n_choices):
                if split.choices[i].weight > 0:
                    score = score_of(asked.key, split.choices[i].seed, split.choices[i].weight)
                    if best == NULL or score < least:
                        best, least = &split.choices[i], score
            return <Target>best.target
        at = roll(SHARE_UNIT)
        while at >= choice.upto:
            choice += 1
        return <Target>choice.target

    cdef Value* _value(self, int field, Value* values, const Asked* asked) noexcept:
        cdef Value* value = &values[field]
        if value.is_known:
            return value
        if self.fields[field].is_parameter:
            find_parameters(asked.body, self.fields, self.n_fields, values)
        else:
            value.is_known = True
            value.is_there = asked.headers != NULL and find_noted(asked.headers, self.fields[field].name, &value.span)
        return value


cdef bint matches(const Rule* rule, Span value) noexcept nogil:
    cdef int low = 0, high = rule.n_values, middle, order
    if rule.is_prefix:
        for low in range(rule.n_values):
            if value.len >= rule.values[low].len and memcmp(value.ptr, rule.values[low].ptr, rule.values[low].len) == 0:
                return True
        return False
    while low < high:
        middle = (low + high) // 2
        order = compare(value, rule.values[middle])
        if order == 0:
            return True
        if order < 0:
            high = middle
        else:
            low = middle + 1
    return False


# --- parameters of a request ----------------------------------------------------------------------------------------------------

cdef void find_parameters(Span body, const Field* fields, int n_fields, Value* values) noexcept nogil:
    """All parameter fields at once, from the entries of ModelInferRequest.parameters; the message has been parsed before. Strings as they
    are, whole numbers in decimal, booleans as true and false; floating point numbers are no names for anything."""
    cdef Cursor c = cursor_over(body)
    cdef Cursor inner
    cdef uint32_t field
    cdef int wire_type, i
    cdef Span entry, key, value
    for i in range(n_fields):
        if fields[i].is_parameter:
            values[i].is_known, values[i].is_there = True, False
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return
        if field != 4 or wire_type != WIRE_BYTES:
            if skip_field(&c, field, wire_type) < 0:
                return
            continue
        if read_bytes(&c, &entry) < 0:
            return
        memset(&key, 0, sizeof(Span))
        memset(&value, 0, sizeof(Span))
        inner = cursor_over(entry)
        while inner.at < inner.end:
            if read_tag(&inner, &field, &wire_type) < 0:
                return
            if wire_type != WIRE_BYTES or field > 2:
                if skip_field(&inner, field, wire_type) < 0:
                    return
            elif read_bytes(&inner, &key if field == 1 else &value) < 0:
                return
        for i in range(n_fields):
            if fields[i].is_parameter and span_equals(fields[i].name, key):
                read_parameter(value, &values[i])             # of an entry that comes twice the last counts


cdef void read_parameter(Span parameter, Value* value) noexcept nogil:
    """One InferParameter."""
    cdef Cursor c = cursor_over(parameter)
    cdef uint32_t field
    cdef int wire_type
    cdef uint64_t number
    value.is_there = False
    while c.at < c.end:
        if read_tag(&c, &field, &wire_type) < 0:
            return
        if field == 3 and wire_type == WIRE_BYTES:
            if read_bytes(&c, &value.span) < 0:
                return
            value.is_there = True
        elif wire_type == WIRE_VARINT and (field == 1 or field == 2 or field == 5):
            if read_varint(&c, &number) < 0:
                return
            value.is_there = True
            if field == 1:
                value.span.ptr, value.span.len = <const uint8_t*>(TRUE if number else FALSE), 4 if number else 5
            else:
                write_decimal(number, field == 2 and number >> 63, value)
        else:
            if skip_field(&c, field, wire_type) < 0:
                return
            if field == 4:
                value.is_there = False


cdef void write_decimal(uint64_t number, bint is_negative, Value* value) noexcept nogil:
    cdef uint8_t* end = value.digits + DIGITS_BYTES
    cdef uint8_t* at = end
    if is_negative:
        number = 0 - number
    while True:
        at -= 1
        at[0] = 48 + <uint8_t>(number % 10)
        number //= 10
        if number == 0:
            break
    if is_negative:
        at -= 1
        at[0] = 45                                            # '-'
    value.span.ptr, value.span.len = at, end - at
