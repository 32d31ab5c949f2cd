/*
 * Words: a writable buffer seen as 64-bit words that several processes change with C11 atomics.
 *
 * Owns: every shared word of the table that more than one process writes, and the two operations on counted
 * words that must survive the death of a process at any instruction. Knows nothing of what the words mean;
 * the places of columns are given once, as a geometry.
 *
 * Half of this file says why; it stays in one piece because the two operations, the checks of what they touch
 * and the type that carries them are one argument.
 *
 * It cannot crash the interpreter: arguments are exact ints and tuples (no __index__ runs), every index and
 * value is checked, and the buffer is held from construction until the object is gone.
 *
 * A counted word is  sequence(32) | column(8) | count(24).  The tag (column, sequence) names the operation
 * that wrote the word last. A column has
 *   - an intent word,    sequence(32) | kind(2) | owner(8) | entry(22);  kind 0: no operation is under way,
 *                        and the sequence is that of the last one, so it goes on when the column is reused,
 *   - ledger entries,    word index(40) | amount(24);  0: free,
 *   - a row of notes,    one word for each other column, written by that one only:  valid(1) | sequence(32).
 *
 *   take:     intent = take;  entry = word | amount;  swap the word from count to count + amount, tagged;
 *             (entry = 0 if refused);  intent = idle
 *   release:  intent = release;  swap the word to count - amount, tagged;  entry = 0;  intent = idle
 *
 * Before a swap that would erase a tag (q, s) while q's intent still says s, the swapper writes s into its
 * note in q's row. So whoever finds column q dead with intent s knows whether the swap of s took place: it
 * did if and only if the word still carries (q, s), or else a note in q's row says s (look in this order).
 * This is the detectable compare-and-swap of Attiya, Ben-Baruch and Hendler (2018).
 * A note is written only while it is needed; otherwise the tag of an older operation of q, left on some quiet
 * word, could overwrite the note of the newer one.
 *
 * Sequences wrap. A tag or note is taken for one of 2^32 operations later only if it lay untouched all that
 * time, and its column dies in that very operation before the swap.
 *
 * Orders: the stores are release stores and the swaps are sequentially consistent, so on every machine a
 * process that dies leaves a prefix of its writes, in program order.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdatomic.h>
#include <stdint.h>

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free to work between processes");
_Static_assert(sizeof(_Atomic uint64_t) == 8, "an atomic word must be 8 bytes");

#define COUNT_BITS 24
#define COUNT_MASK 0xFFFFFFull
#define COLUMN_MASK 0xFFull
#define ENTRY_LIMIT (1ull << 22)
#define COLUMN_LIMIT 256ull
#define KIND_MASK (3ull << 30)
#define KIND_TAKE (1ull << 30)
#define KIND_RELEASE (2ull << 30)
#define NOTE_VALID (1ull << 32)

typedef _Atomic uint64_t word_t;

/* Places within the words: column c's block starts at base + c * stride; the rest is relative to a block. */
typedef struct {
    uint64_t columns, base, stride, intent, notes, ledger, entries;
} geometry_t;

typedef struct {
    PyObject_HEAD
    Py_buffer view;
    word_t *words;
    uint64_t size;       /* in words; 0 once cleared, so that every index is out of range */
    geometry_t at;
    PyObject *halted;    /* the exception class */
    uint64_t halt;       /* writes left until the next halt; 0: never */
} Words;

static uint64_t load(word_t *word) { return atomic_load_explicit(word, memory_order_acquire); }

/* ---- arguments -------------------------------------------------------------------------------- */

static int read_value(PyObject *object, uint64_t *value)
{
    if (!PyLong_CheckExact(object)) {
        PyErr_SetString(PyExc_TypeError, "words take exact ints");
        return -1;
    }
    *value = PyLong_AsUnsignedLongLong(object);
    return *value == UINT64_MAX && PyErr_Occurred() ? -1 : 0;
}

static int read_below(PyObject *object, uint64_t limit, const char *what, uint64_t *value)
{
    if (read_value(object, value) < 0) {
        return -1;
    }
    if (*value >= limit) {
        PyErr_Format(PyExc_IndexError, "%s %llu is not below %llu", what, (unsigned long long)*value,
                     (unsigned long long)limit);
        return -1;
    }
    return 0;
}

static int expect_arguments(Py_ssize_t given, Py_ssize_t wanted)
{
    if (given == wanted) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "takes %zd arguments, not %zd", wanted, given);
    return -1;
}

/* Column 0 is nobody's: a tag that names it names no operation. */
static int read_column(Words *self, PyObject *object, uint64_t *column)
{
    if (read_below(object, self->at.columns, "column", column) < 0) {
        return -1;
    }
    if (*column == 0) {
        PyErr_SetString(PyExc_IndexError, "column 0 belongs to nobody");
        return -1;
    }
    return 0;
}

/* ---- writes that a test can stop after --------------------------------------------------------- */

/* Called after every write; -1 stops the operation here, as the death of the process would. */
static int wrote(Words *self)
{
    if (self->halt == 0 || --self->halt != 0) {
        return 0;
    }
    PyErr_SetString(self->halted, "halted after a write, as asked");
    return -1;
}

static int put(Words *self, word_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
    return wrote(self);
}

/* 1: swapped, 0: another value was there and is now in *expected, -1: halted. */
static int swap(Words *self, word_t *word, uint64_t *expected, uint64_t desired)
{
    if (!atomic_compare_exchange_strong(word, expected, desired)) {
        return 0;
    }
    return wrote(self) < 0 ? -1 : 1;
}

/* ---- plain words ------------------------------------------------------------------------------- */

static PyObject *words_load(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t index;
    if (expect_arguments(nargs, 1) < 0 || read_below(args[0], self->size, "word", &index) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(load(&self->words[index]));
}

static PyObject *words_store(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t index, value;
    if (expect_arguments(nargs, 2) < 0 || read_below(args[0], self->size, "word", &index) < 0 ||
        read_value(args[1], &value) < 0 || put(self, &self->words[index], value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *words_fetch_add(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t index;
    if (expect_arguments(nargs, 2) < 0 || read_below(args[0], self->size, "word", &index) < 0) {
        return NULL;
    }
    if (!PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "words take exact ints");
        return NULL;
    }
    long long amount = PyLong_AsLongLong(args[1]);
    if (amount == -1 && PyErr_Occurred()) {
        return NULL;
    }
    uint64_t old = atomic_fetch_add(&self->words[index], (uint64_t)amount);
    return wrote(self) < 0 ? NULL : PyLong_FromUnsignedLongLong(old);
}

static PyObject *words_compare_exchange(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t index, expected, desired;
    if (expect_arguments(nargs, 3) < 0 || read_below(args[0], self->size, "word", &index) < 0 ||
        read_value(args[1], &expected) < 0 || read_value(args[2], &desired) < 0) {
        return NULL;
    }
    int swapped = swap(self, &self->words[index], &expected, desired);
    return swapped < 0 ? NULL : PyBool_FromLong(swapped);
}

static PyObject *words_fence(Words *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    atomic_thread_fence(memory_order_seq_cst);
    Py_RETURN_NONE;
}

static PyObject *words_counts(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (expect_arguments(nargs, 1) < 0) {
        return NULL;
    }
    if (!PyTuple_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "counts takes a tuple of word indexes");
        return NULL;
    }
    Py_ssize_t length = PyTuple_Size(args[0]);
    PyObject *result = PyList_New(length);
    for (Py_ssize_t i = 0; result != NULL && i < length; i++) {
        uint64_t index;
        PyObject *count = NULL;
        if (read_below(PyTuple_GetItem(args[0], i), self->size, "word", &index) == 0) {
            count = PyLong_FromUnsignedLongLong(load(&self->words[index]) & COUNT_MASK);
        }
        if (count == NULL) {
            Py_CLEAR(result);
        } else {
            PyList_SetItem(result, i, count);
        }
    }
    return result;
}

/* ---- counted words ----------------------------------------------------------------------------- */

static word_t *in_block(Words *self, uint64_t column, uint64_t offset)
{
    return &self->words[self->at.base + column * self->at.stride + offset];
}

/* Leaves a note for the column whose tag is about to be erased, if that column still needs one. */
static int note_erasure(Words *self, uint64_t column, uint64_t value)
{
    uint64_t other = (value >> COUNT_BITS) & COLUMN_MASK;
    if (other == column || other == 0 || other >= self->at.columns) {
        return 0;
    }
    uint64_t intent = load(in_block(self, other, self->at.intent));
    if (intent >> 32 != value >> 32 || (intent & KIND_MASK) == 0) {
        return 0;
    }
    return put(self, in_block(self, other, self->at.notes + column), NOTE_VALID | value >> 32);
}

/* Writes the intent; gives the operation's tag, or 0 with an exception set. No tag is 0, as no column is. */
static uint64_t begin(Words *self, uint64_t column, uint64_t intention)
{
    word_t *intent = in_block(self, column, self->at.intent);
    uint64_t last = load(intent);
    if (last & KIND_MASK) {
        PyErr_Format(PyExc_RuntimeError, "an operation of column %llu is under way",
                     (unsigned long long)column);
        return 0;
    }
    uint64_t sequence = (last >> 32) + 1;
    return put(self, intent, sequence << 32 | intention) < 0 ? 0 : sequence << 32 | column << COUNT_BITS;
}

static int finish(Words *self, uint64_t column, uint64_t tag)
{
    return put(self, in_block(self, column, self->at.intent), tag >> 32 << 32);
}

static PyObject *words_take(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t column, entry, index, amount, at_most;
    if (expect_arguments(nargs, 5) < 0 || read_column(self, args[0], &column) < 0 ||
        read_below(args[1], self->at.entries, "entry", &entry) < 0 ||
        read_below(args[2], self->size, "word", &index) < 0 ||
        read_value(args[3], &amount) < 0 || read_value(args[4], &at_most) < 0) {
        return NULL;
    }
    word_t *word = &self->words[index];
    word_t *cell = in_block(self, column, self->at.ledger + entry);
    if (amount == 0 || amount > COUNT_MASK || load(cell) != 0) {
        PyErr_SetString(PyExc_ValueError, load(cell) != 0 ? "the ledger entry is in use"
                                                          : "the amount is not 1 to 2**24 - 1");
        return NULL;
    }
    if (at_most > COUNT_MASK - amount) {
        at_most = COUNT_MASK - amount;
    }
    uint64_t seen = load(word);
    if ((seen & COUNT_MASK) > at_most) {
        Py_RETURN_FALSE;
    }
    uint64_t tag = begin(self, column, KIND_TAKE | column << 22 | entry);
    if (tag == 0 || put(self, cell, index << COUNT_BITS | amount) < 0) {
        return NULL;
    }
    int swapped = 0;
    while (!swapped && (seen & COUNT_MASK) <= at_most) {
        if (note_erasure(self, column, seen) < 0 ||
            (swapped = swap(self, word, &seen, tag | ((seen & COUNT_MASK) + amount))) < 0) {
            return NULL;
        }
    }
    if ((!swapped && put(self, cell, 0) < 0) || finish(self, column, tag) < 0) {
        return NULL;
    }
    return PyBool_FromLong(swapped);
}

/* The owner of the entry is the column itself, or a dead one that this column repairs. */
static PyObject *words_release(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t column, owner, entry;
    if (expect_arguments(nargs, 3) < 0 || read_column(self, args[0], &column) < 0 ||
        read_column(self, args[1], &owner) < 0 ||
        read_below(args[2], self->at.entries, "entry", &entry) < 0) {
        return NULL;
    }
    word_t *cell = in_block(self, owner, self->at.ledger + entry);
    uint64_t held = load(cell);
    if (held == 0 || held >> COUNT_BITS >= self->size) {
        PyErr_SetString(PyExc_ValueError, held == 0 ? "the ledger entry is free"
                                                    : "the ledger entry is damaged");
        return NULL;
    }
    word_t *word = &self->words[held >> COUNT_BITS];
    uint64_t amount = held & COUNT_MASK;
    uint64_t tag = begin(self, column, KIND_RELEASE | owner << 22 | entry);
    if (tag == 0) {
        return NULL;
    }
    int swapped = 0;
    uint64_t seen = load(word);
    while (!swapped) {
        /* A count below the amount cannot be; if a stray write made one, it heals at 0, it does not wrap. */
        uint64_t count = seen & COUNT_MASK;
        if (note_erasure(self, column, seen) < 0 ||
            (swapped = swap(self, word, &seen, tag | (count > amount ? count - amount : 0))) < 0) {
            return NULL;
        }
    }
    if (put(self, cell, 0) < 0 || finish(self, column, tag) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *words_halt_after(Words *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (expect_arguments(nargs, 1) < 0 || read_value(args[0], &self->halt) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the type ---------------------------------------------------------------------------------- */

static int read_geometry(Words *self, PyObject *geometry)
{
    geometry_t *at = &self->at;
    uint64_t *fields[] = {&at->columns, &at->base,   &at->stride, &at->intent,
                          &at->notes,   &at->ledger, &at->entries};
    if (!PyTuple_CheckExact(geometry) || PyTuple_Size(geometry) != 7) {
        PyErr_SetString(PyExc_TypeError,
                        "a geometry is (columns, base, stride, intent, notes, ledger, entries)");
        return -1;
    }
    for (int i = 0; i < 7; i++) {
        if (read_value(PyTuple_GetItem(geometry, i), fields[i]) < 0) {
            return -1;
        }
    }
    if (at->columns == 0 || at->columns > COLUMN_LIMIT || at->entries > ENTRY_LIMIT ||
        at->base > self->size || at->stride > (self->size - at->base) / at->columns ||
        at->intent >= at->stride || at->notes > at->stride || at->columns > at->stride - at->notes ||
        at->ledger > at->stride || at->entries > at->stride - at->ledger) {
        PyErr_SetString(PyExc_ValueError, "the geometry does not fit into the buffer");
        return -1;
    }
    return 0;
}

static PyObject *words_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"buffer", "geometry", NULL};
    PyObject *buffer, *geometry = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", names, &buffer, &geometry)) {
        return NULL;
    }
    PyObject **halted = PyType_GetModuleState(type);
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Words *self = halted == NULL || allocate == NULL ? NULL : (Words *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    Py_INCREF(*halted);
    self->halted = *halted;
    if (PyObject_GetBuffer(buffer, &self->view, PyBUF_WRITABLE) < 0) {
        goto failed;
    }
    self->size = (uint64_t)self->view.len / 8;
    self->words = self->view.buf;
    if ((uintptr_t)self->view.buf % 8 != 0 || self->view.len % 8 != 0) {
        PyErr_SetString(PyExc_ValueError, "the buffer must start at and consist of whole 8-byte words");
        goto failed;
    }
    if (geometry != Py_None && read_geometry(self, geometry) < 0) {
        self->at = (geometry_t){0};
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int words_traverse(Words *self, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE((PyObject *)self));
    /* Not the owner of the buffer: up to 3.12 the collector may clear a memoryview that still has an export, and
     * releasing that crashes. The price is that a cycle through the owner is not collected. */
    Py_VISIT(self->halted);
    return 0;
}

/* Gives the buffer back. The size is 0 from then on, so that nothing can reach it any more. */
static int words_clear(Words *self)
{
    self->size = 0;
    self->at = (geometry_t){0};
    self->words = NULL;
    PyBuffer_Release(&self->view);
    Py_CLEAR(self->halted);
    return 0;
}

static void words_dealloc(Words *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    words_clear(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static Py_ssize_t words_length(Words *self) { return (Py_ssize_t)self->size; }

#define METHOD(name, text) {#name, (PyCFunction)(void (*)(void))words_##name, METH_FASTCALL, text}

static PyMethodDef words_methods[] = {
    METHOD(load, "load(index) -> value"),
    METHOD(store, "store(index, value)"),
    METHOD(fetch_add, "fetch_add(index, amount) -> old value; the amount may be negative, the sum wraps"),
    METHOD(compare_exchange, "compare_exchange(index, expected, desired) -> whether it was swapped"),
    METHOD(counts, "counts(indexes) -> the counts of these counted words"),
    METHOD(take, "take(column, entry, word, amount, at_most) -> False if the count is above at_most"),
    METHOD(release, "release(column, owner, entry)"),
    METHOD(halt_after, "halt_after(writes): the operation that makes so many writes raises Halted; 0: never"),
    {"fence", (PyCFunction)(void (*)(void))words_fence, METH_NOARGS, "fence(): orders all reads and writes"},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot words_slots[] = {
    {Py_tp_doc, "Words(buffer, geometry=None): a writable buffer as 64-bit words, changed with atomics."},
    {Py_tp_new, words_new},
    {Py_tp_dealloc, words_dealloc},
    {Py_tp_traverse, words_traverse},
    {Py_tp_clear, words_clear},
    {Py_tp_methods, words_methods},
    {Py_sq_length, words_length},
    {0, NULL},
};

static PyType_Spec words_spec = {
    .name = "lbproc.shm._atomics.Words",
    .basicsize = sizeof(Words),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = words_slots,
};

/* ---- the module: its state is the exception class ---------------------------------------------- */

static int atomics_execute(PyObject *module)
{
    PyObject **halted = PyModule_GetState(module);
    *halted = PyErr_NewExceptionWithDoc("lbproc.shm._atomics.Halted",
                                        "An operation stopped after a write because a test asked for it.",
                                        NULL, NULL);
    if (*halted == NULL || PyModule_AddObjectRef(module, "Halted", *halted) < 0) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &words_spec, NULL);
    int status = type == NULL ? -1 : PyModule_AddObjectRef(module, "Words", type);
    Py_XDECREF(type);
    return status;
}

static int atomics_traverse(PyObject *module, visitproc visit, void *arg)
{
    PyObject **halted = PyModule_GetState(module);
    Py_VISIT(*halted);
    return 0;
}

static int atomics_clear(PyObject *module)
{
    PyObject **halted = PyModule_GetState(module);
    Py_CLEAR(*halted);
    return 0;
}

static PyModuleDef_Slot atomics_slots[] = {{Py_mod_exec, atomics_execute}, {0, NULL}};

static PyModuleDef atomics_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "lbproc.shm._atomics",
    .m_doc = "64-bit words shared between processes. See the head of the source file.",
    .m_size = sizeof(PyObject *),
    .m_slots = atomics_slots,
    .m_traverse = atomics_traverse,
    .m_clear = atomics_clear,
};

PyMODINIT_FUNC PyInit__atomics(void) { return PyModuleDef_Init(&atomics_module); }
